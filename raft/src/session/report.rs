//! The node's side of its session: finds the leader, reports to it what this node enforces, and hears from it the
//! cluster's time and its authority to admit requests. A leader reports to itself, without a stream.
//!
//! A report is sent when there is news and at least every so often, and one at a time: while it is not answered, news
//! gathers. So the number of reports follows the round trip, not the number of writes. What the node asks of the limits
//! goes along by itself, likewise one request at a time.

use crate::{
    adapt::{engine::Reign, network::MESSAGE_BYTES_MAX},
    lead::Grant,
    mutation::{self, Mutation},
    node::Node,
    session::{
        renewals::Renewals,
        steward::Letter,
        table::Said,
        tenure::{SessionId, Tenure},
    },
    status,
};
use machine::{At, Tick, Wall, member::NodeId};
use proto::peer::{Advice, Report, leader_client::LeaderClient};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// How long to wait before a leader that could not be reached is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Messages that wait to be taken by the connection: a report, a request for allowances, those that take the place of
/// requests that were given up, and the goodbye.
const UPWARDS_MAX: usize = 8;

/// Why a session ended.
enum Ended {
    /// Another leads, or nobody; or this node stops.
    Moved,
    /// The leader did not answer.
    Broken(String),
    /// The leader says that this node is no member.
    Removed,
}

/// Keeps the session until the node stops.
pub(crate) async fn report(node: Arc<Node>) {
    let mut leaders = node.watch_leader();
    let mut stopping = node.watch_stopping();
    let mut said_why = String::new();
    let mut led_by = None;
    while !*stopping.borrow_and_update() {
        let leader = *leaders.borrow_and_update();
        if leader != led_by {
            node.session_is(status::Session::Seeking);
            led_by = leader;
        }
        let pause = match leader {
            Some(leader) if leader == node.id => {
                tokio::select! {
                    () = here(&node) => {}
                    () = serve_here(&node) => {}
                }
                PAUSE
            }
            Some(leader) => match there(&node, leader).await {
                Ended::Moved => Duration::ZERO,
                Ended::Broken(why) => {
                    if why != said_why {
                        tracing::debug!(leader, why, "no session with the leader");
                        said_why = why;
                    }
                    node.session_is(status::Session::Seeking);
                    if mutation::is(Mutation::StaysAlone) { Duration::from_secs(3_600) } else { PAUSE }
                }
                Ended::Removed => {
                    node.session_is(status::Session::Removed);
                    node.timing.report
                }
            },
            None => {
                node.session_is(status::Session::Seeking);
                node.timing.report
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Raft has ended on this node: there is nothing to report any more.
            changed = leaders.changed(), if !mutation::is(Mutation::StaysAlone) => if changed.is_err() { break },
            _ = stopping.changed() => {}
        }
    }
    node.session_is(status::Session::Seeking);
}

/// Reports to this node itself while it leads.
async fn here(node: &Arc<Node>) {
    let mut enforced = node.watch_enforced();
    let mut tenure = node.watch_tenure();
    let mut leaders = node.watch_leader();
    let mut stopping = node.watch_stopping();
    let mut renewals: Option<(Reign, SessionId, Renewals)> = None;
    loop {
        if *leaders.borrow_and_update() != Some(node.id) {
            return;
        }
        let held: Option<Arc<Tenure>> = tenure.borrow_and_update().clone();
        enforced.mark_unchanged();
        if let Some(held) = held {
            // Before anything of the report: the lease counts from here.
            let sent_us = node.clock.boot_us();
            let (session, mut renewed) = match renewals.take() {
                Some((reign, session, renewed)) if reign == held.reign => (session, renewed),
                _ => (held.session(), Renewals::default()),
            };
            held.report(session, node.id, said(node), Some(node.spec()));
            if !node.is_stopping()
                && renewed.is_due(node.timing.report)
                && let Some(grant) = node.lead_grant(&held, session, node.id).await
            {
                node.granted(sent_us, grant);
            }
            renewals = Some((held.reign, session, renewed));
            node.hear(held.time(&node.standing().voters), node.clock.boot_us(), held.began_at);
            node.session_is(status::Session::Open);
        }
        if *stopping.borrow_and_update() {
            return;
        }
        tokio::select! {
            _ = enforced.changed() => {}
            _ = tenure.changed() => {}
            changed = leaders.changed() => if changed.is_err() { return },
            _ = stopping.changed() => {}
            () = tokio::time::sleep(node.timing.report) => {}
        }
    }
}

/// Serves what this node asks of the limits, while it leads.
async fn serve_here(node: &Arc<Node>) {
    let mut letters = node.outbox().watch();
    loop {
        let letter: Option<Arc<Letter>> = letters.borrow_and_update().clone();
        let served = async {
            while let Some(letter) = &letter {
                match node.lead_acquire(letter.acquire.clone(), letter.record.len()).await {
                    Ok(answer) => return node.answered(letter.acquire.request, &answer),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        let changed = async {
            served.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = changed => {}
            // A newer request, or none.
            changed = letters.changed() => if changed.is_err() { return },
        }
    }
}

/// Reports to another node while it leads.
async fn there(node: &Arc<Node>, leader: NodeId) -> Ended {
    let link = match node.peers.link(leader).await {
        Ok(link) => link,
        Err(error) => return Ended::Broken(error.to_string()),
    };
    let (send, reports) = mpsc::channel(UPWARDS_MAX);
    let mut enforced = node.watch_enforced();
    let mut leaders = node.watch_leader();
    let mut stopping = node.watch_stopping();
    let mut certificate = node.certificate.clone();
    let mut spec = node.watch_spec();
    let mut letters = node.outbox().watch();
    let mut client = LeaderClient::new(link.channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);

    // Read before the report is handed over: the lease that answers it counts from here.
    let mut sent_us = node.clock.boot_us();
    let mut sequence = 1;
    if send.try_send(message(node, sequence, true)).is_err() {
        return Ended::Moved;
    }
    let open = tokio::time::timeout(node.timing.silence, client.session(ReceiverStream::new(reports)));
    let mut advice = match open.await {
        Ok(Ok(advice)) => advice.into_inner(),
        Ok(Err(status)) => {
            node.peers.blame(&link, &status);
            return ended(&status);
        }
        Err(_) => {
            node.peers.complain(&link);
            return Ended::Broken("the leader did not answer".to_owned());
        }
    };
    let (mut answered, mut news, mut moved) = (false, false, false);
    let mut began_at = None;
    // What another leader did not answer is asked again.
    letters.mark_changed();
    let mut deadline = Instant::now() + node.timing.silence;
    let mut next = Instant::now() + node.timing.report;
    loop {
        if answered && (news || Instant::now() >= next) {
            enforced.mark_unchanged();
            certificate.mark_unchanged();
            sent_us = node.clock.boot_us();
            sequence += 1;
            if send.try_send(message(node, sequence, moved)).is_err() {
                return Ended::Broken("the session has ended".to_owned());
            }
            (answered, news, moved) = (false, false, false);
            deadline = Instant::now() + node.timing.silence;
            next = Instant::now() + node.timing.report;
        }
        tokio::select! {
            said = advice.message() => match said {
                Ok(Some(said)) if !said.answer.is_empty() => match crate::codec::decode(&said.answer) {
                    Ok(answer) => node.answered(said.request, &answer),
                    Err(error) => return Ended::Broken(format!("the leader's answer: {error}")),
                },
                // It answers the one report that is on the way, and its lease counts from when that was sent.
                Ok(Some(said)) if said.sequence == sequence => {
                    let Advice { tick_us, wall_ms, committed, lease_ttl_us: ttl_us, read_index, .. } = said;
                    if ttl_us > 0 {
                        node.granted(sent_us, Grant { ttl_us, read_index });
                    }
                    let committed = *began_at.get_or_insert(committed);
                    node.hear(At { tick: Tick(tick_us), wall: Wall(wall_ms) }, sent_us, committed);
                    node.session_is(status::Session::Open);
                    answered = true;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ended::Broken("the leader has ended the session".to_owned()),
                Err(status) => {
                    node.peers.blame(&link, &status);
                    return ended(&status);
                }
            },
            Ok(()) = letters.changed() => {
                let letter = letters.borrow_and_update().clone();
                if let Some(letter) = letter
                    && send.try_send(asking(node.id, &letter)).is_err()
                {
                    return Ended::Broken("the session takes nothing more".to_owned());
                }
            }
            _ = enforced.changed() => news = true,
            _ = spec.changed() => (news, moved) = (true, true),
            Ok(()) = certificate.changed() => news = true,
            changed = leaders.changed() => {
                if changed.is_err() || *leaders.borrow_and_update() != Some(leader) {
                    return Ended::Moved;
                }
            }
            _ = stopping.changed() => {
                // Said once, and the stream is given a moment to carry it; if it is lost, silence says the same later.
                if send.try_send(message(node, sequence + 1, false)).is_ok() {
                    let _: Result<_, _> = tokio::time::timeout(PAUSE, async {
                        while let Ok(Some(_)) = advice.message().await {}
                    }).await;
                }
                return Ended::Moved;
            }
            () = tokio::time::sleep_until(if answered { next } else { deadline }) => {
                if !answered {
                    node.peers.complain(&link);
                    return Ended::Broken("the leader did not answer".to_owned());
                }
            }
        }
    }
}

fn ended(status: &tonic::Status) -> Ended {
    match status.code() {
        Code::NotFound => Ended::Removed,
        code => Ended::Broken(format!("{code:?}: {}", status.message())),
    }
}

fn said(node: &Node) -> Said {
    let certificate = node.certificate.borrow().clone();
    Said {
        enforced: node.enforced(),
        utc_ms: node.clock.utc_ms(),
        authority_sha256: certificate.authority_sha256,
        not_after_ms: certificate.not_after_ms,
        disk_low: node.disk.look(),
        leaving: node.is_stopping(),
    }
}

fn asking(node: NodeId, letter: &Letter) -> Report {
    Report { node, acquire: letter.record.clone(), ..Report::default() }
}

fn message(node: &Node, sequence: u64, with_spec: bool) -> Report {
    let said = said(node);
    let spec = if with_spec { crate::codec::encode(&node.spec()).unwrap_or_default() } else { bytes::Bytes::new() };
    Report {
        node: node.id,
        enforced: said.enforced,
        utc_ms: said.utc_ms,
        spec,
        certificate_authority_sha256: said.authority_sha256.into(),
        certificate_not_after_ms: said.not_after_ms,
        disk_low: said.disk_low,
        leaving: said.leaving,
        sequence,
        ..Report::default()
    }
}
