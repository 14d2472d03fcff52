//! A node's process: what `quorate` does around consensus, as far as it matters here. It ends when raft fails, or when it is told to.

use super::{
    admin,
    clock::now_us,
    gateway::Gateway,
    network,
    seat::{Order, Phase, Seat, lock},
};
use chaos::history::{Observed, What};
use machine::{Actor, Command, Outcome, Wall, command::Initialize, member::MemberSpec, settings::Settings};
use raft::{Callers, Certificate, Fence, Folders, Handle, Role, Start, Timing, Upkeep};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;
use turmoil::net::TcpListener;

/// So many requests at a time does a node's gateway decide.
const WORKERS: usize = 3;

/// How often a node says how it stands.
const LOOK: Duration = Duration::from_millis(53);

/// Often enough for snapshots and cuts in a short run.
const UPKEEP: Upkeep = Upkeep {
    checkpoint_bytes: u64::MAX,
    checkpoint_every: Duration::from_secs(100_000),
    snapshot_bytes: u64::MAX,
    snapshot_entries: 60,
    keep_entries: 20,
    disk_low_bytes: 0,
    digest_entries: 0,
};

/// Lives once.
pub(super) async fn live(seat: Arc<Seat>) -> turmoil::Result {
    let mut admitted = seat.admitted.subscribe();
    if admitted.wait_for(|admitted| *admitted).await.is_err() {
        return Ok(());
    }
    let incarnation = seat.incarnation.fetch_add(1, Ordering::Relaxed) + 1;
    let record = &seat.cluster.record;
    record.note(|known| known.figures.starts += 1);
    let listener = TcpListener::bind(("0.0.0.0", network::PORT)).await?;
    let gateway = Arc::new(Gateway::new(Arc::clone(&seat)));
    let timing = Timing::default();
    let folder = |name: &str| Path::new("/").join(name);
    let start = Start {
        node: seat.id,
        spec: spec(seat.id),
        folders: Folders { log: folder("log"), checkpoint: folder("checkpoint"), snapshots: folder("snapshots") },
        expect_data: false,
        peers: (1..=3).map(|node| (node, network::address(node))).collect(),
        dial: network::dial(timing.dial),
        timing,
        upkeep: UPKEEP,
        clock: Arc::clone(&seat.clock) as _,
        publish: gateway.publish(),
        certificate: watch::channel(Certificate::default()).1,
        callers: Callers::Trusted,
        ground: seat.disk.ground(),
    };
    let handle = match raft::start(start).await {
        Ok(handle) => handle,
        Err(error) => {
            if !seat.may_end.load(Ordering::Relaxed) {
                record.violated(format!("node {} does not start: {error}", seat.id));
            }
            return Ok(());
        }
    };
    tokio::spawn(network::serve(listener, handle.services()));
    gateway.begin(&handle);
    for _ in 0..WORKERS {
        tokio::spawn(Arc::clone(&gateway).work());
    }
    tokio::spawn(admin::work(Arc::clone(&seat), handle.clone()));
    tokio::spawn(observe(Arc::clone(&seat), handle.clone(), incarnation));
    tokio::spawn(recover(Arc::clone(&seat), handle.clone()));
    if seat.id == 1 && seat.cluster.phase() == Phase::Making {
        tokio::spawn(make(Arc::clone(&seat), handle.clone()));
    }
    tokio::select! {
        why = handle.failed() => {
            if !seat.may_end.load(Ordering::Relaxed) {
                record.violated(format!("node {} has failed: {why}", seat.id));
            }
        }
        () = obey(Arc::clone(&seat), handle.clone()) => {}
    }
    Ok(())
}

/// Carries out orders until one says to stop.
async fn obey(seat: Arc<Seat>, handle: Handle) {
    loop {
        let order = lock(&seat.orders).pop_front();
        match order {
            None => seat.ordered.notified().await,
            Some(Order::Stop) => return handle.stop().await,
            Some(order) => {
                let (seat, handle) = (Arc::clone(&seat), handle.clone());
                tokio::spawn(async move { carry_out(&seat, &handle, order).await });
            }
        }
    }
}

async fn carry_out(seat: &Arc<Seat>, handle: &Handle, order: Order) {
    match order {
        Order::Stop => {}
        Order::Transfer(to) => drop(handle.transfer_leader(Some(to)).await),
        Order::Stand(id, standing) => drop(ask(seat, handle, Command::SetStanding { id, standing }).await),
        Order::Admit(newcomer, learner) => admit(seat, handle, &newcomer, learner).await,
    }
}

/// Lets a node in. Without an answer it stays outside: it may have been given a number, which nobody uses then.
async fn admit(seat: &Arc<Seat>, handle: &Handle, newcomer: &Arc<Seat>, learner: bool) {
    let mut token_hash = [0; 32];
    token_hash[..8].copy_from_slice(&seat.cluster.number().to_le_bytes());
    let not_after = Wall(u64::MAX / 2);
    if ask(seat, handle, Command::CreateJoinToken { hash: token_hash, not_after }).await.is_none() {
        return;
    }
    let command = Command::AdmitMember { token_hash, spec: spec(newcomer.id), learner };
    match ask(seat, handle, command).await {
        Some(Outcome::Admitted { id, .. }) if id == newcomer.id => {
            newcomer.gone.store(false, Ordering::Relaxed);
            newcomer.admitted.send_replace(true);
        }
        other => tracing::debug!(?other, newcomer = newcomer.id, "not admitted"),
    }
}

async fn ask(seat: &Arc<Seat>, handle: &Handle, command: Command) -> Option<Outcome> {
    let actor = match command {
        Command::AdmitMember { .. } => Actor::Node(seat.id),
        _ => admin::operator()?,
    };
    let request = admin::request(&seat.cluster, handle);
    handle.propose(request, actor, command, Fence::None).await.ok().map(|written| written.outcome)
}

fn spec(id: u64) -> MemberSpec {
    MemberSpec {
        name: admin::name(&format!("n{id}")),
        address: network::address(id),
        gateway_address: String::new(),
        gateway_tls_address: String::new(),
        ops_address: String::new(),
        zone: None,
        version: "0.1.0".into(),
        feature_level_max: 1,
    }
}

/// Makes the cluster, as the first node.
async fn make(seat: Arc<Seat>, handle: Handle) {
    let initialize = Initialize {
        cluster: [7; 16],
        feature_level: 1,
        settings: Settings { voters: seat.cluster.voters, ..Settings::default() },
        authority_sha256: [1; 32],
        authority_pem: "authority".into(),
        member: spec(1),
        operator: admin::name("root"),
        operator_certificate_sha256: [2; 32],
        operator_not_after: Wall(u64::MAX / 2),
        join_token_hash: [3; 32],
        join_token_not_after: Wall(u64::MAX / 2),
    };
    while !matches!(handle.bootstrap(initialize.clone()).await, Ok(Outcome::Admitted { .. } | Outcome::Done { .. })) {
        tokio::time::sleep(LOOK).await;
    }
    let newcomers = lock(&seat.cluster.founders).clone();
    for newcomer in newcomers {
        admit(&seat, &handle, &newcomer, false).await;
    }
    admin::found(&seat, &handle).await;
    // Until everybody votes who shall.
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(seen) = handle.observe().await else { continue };
        let votes = seen.members.iter().filter(|member| member.voter).count();
        let wanted = seen.members.len().min(usize::from(seat.cluster.voters));
        if seen.settled && votes == wanted && seen.members.iter().all(|member| member.reachable) {
            seat.cluster.phase.send_replace(Phase::Work);
            return;
        }
    }
}

/// Says how the node stands, again and again.
async fn observe(seat: Arc<Seat>, handle: Handle, incarnation: u64) {
    let record = &seat.cluster.record;
    let (mut applied, mut snapshot) = (0, 0);
    loop {
        let began_us = now_us();
        let local = handle.local();
        let view = handle.view();
        if local.applied < applied {
            record.violated(format!("node {} goes back from {applied} to {}", seat.id, local.applied));
        }
        applied = local.applied;
        seat.applied.store(applied, Ordering::Relaxed);
        seat.leads.store(local.role == Role::Leader, Ordering::Relaxed);
        if local.role == Role::Leader {
            record.leads(seat.id, local.term);
        }
        if local.snapshot != snapshot {
            snapshot = local.snapshot;
            record.note(|known| known.figures.snapshots += 1);
        }
        let digest = record.state(seat.id, &view);
        for other in lock(&seat.cluster.seats).iter() {
            let registry = &view.registry;
            let member = registry.members.get(&other.id);
            if registry.next_member > other.id && member.is_none_or(|member| member.is_leaving()) {
                other.gone.store(true, Ordering::Relaxed);
            }
        }
        record.event(What::Observed(Observed {
            node: seat.id,
            incarnation,
            began_us,
            applied: view.index,
            revision: view.registry.revision,
            enforced: local.enforced,
            enforced_revision: None,
            authority: local.authority_ms > 0,
            digests: vec![(view.index, format!("{digest:016x}"))],
        }));
        tokio::time::sleep(LOOK).await;
    }
}

/// Once the faults are over: shows that the node takes part again.
async fn recover(seat: Arc<Seat>, handle: Handle) {
    let mut phase = seat.cluster.phase.subscribe();
    if phase.wait_for(|phase| *phase >= Phase::Recover).await.is_err() {
        return;
    }
    loop {
        let fence = Fence::Within(Duration::from_secs(10));
        let Some(actor) = admin::operator() else { return };
        let request = admin::request(&seat.cluster, &handle);
        let written = handle.propose(request, actor, Command::Nothing, fence).await;
        let now = handle.local();
        if written.is_ok_and(|written| !matches!(written.outcome, Outcome::Refused(_)))
            && now.authority_ms > 0
            && now.caught_up
        {
            seat.served.store(true, Ordering::Relaxed);
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
