//! Keeps the node's certificate young, and the keys of authorities on the nodes that may sign.
//!
//! A certificate is renewed after two thirds of its life, or at once when another authority has become the signing one.
//! A member that may vote fetches the keys of the active and the incoming authority; one that may not any more gives
//! its copy up once a voter says that it has one.
//!
//! Where certificates are signed outside there is nobody to ask and no key to keep: then it only says when it is time.

use super::{authority, certificate::Validity, outside::time, trust::Shown};
use crate::enrol::{Registrar, SignError, active_sha256, eligible};
use machine::{View, authority::Phase, member::Standing};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// How often it looks, when the registry does not change. A machine whose date was wrong and is right again waits no longer.
const EVERY: Duration = Duration::from_secs(10);
/// After a failure: a voter may come back any moment.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Between two looks when the registry changes fast.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two reminders.
const REMIND_MS: u64 = 60 * 60 * 1000;

/// Starts the task; it ends when it is aborted.
pub fn start(registrar: Registrar) -> JoinHandle<()> {
    let views = registrar.raft().watch();
    tokio::spawn(run(registrar, views))
}

async fn run(registrar: Registrar, mut views: watch::Receiver<Arc<View>>) {
    let mut known = BTreeSet::new();
    let mut seen = None;
    let mut reminded_ms = None;
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let looked = if registrar.signed_outside {
            remind(&registrar, &mut reminded_ms)
        } else {
            look(&registrar, &view, &mut known).await
        };
        let wait = match looked {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "the node's certificate or the authority's key could not be renewed: trying again");
                AFTER_FAILURE
            }
        };
        seen.clone_from(&Some(concerns(&registrar, &view)));
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            tokio::time::sleep(PAUSE).await;
            match tokio::time::timeout_at(deadline, views.changed()).await {
                Ok(Ok(())) if Some(concerns(&registrar, &views.borrow_and_update())) == seen => {}
                Ok(Err(_)) => return,
                Ok(Ok(())) | Err(_) => break,
            }
        }
    }
}

/// What of a View this task cares about.
fn concerns(registrar: &Registrar, view: &View) -> (Option<Standing>, Vec<([u8; 32], Phase)>) {
    let standing = view.registry.members.get(&registrar.node).map(|member| member.standing);
    let authorities = view.registry.authorities.values().map(|authority| (authority.sha256, authority.phase)).collect();
    (standing, authorities)
}

async fn look(registrar: &Registrar, view: &View, known: &mut BTreeSet<[u8; 32]>) -> Result<(), SignError> {
    let Some(member) = view.registry.members.get(&registrar.node) else { return Ok(()) };
    // An authority that was there and is gone has been retired: its key is of no use to anybody honest.
    let registered: BTreeSet<[u8; 32]> = view.registry.authorities.keys().copied().collect();
    for gone in known.difference(&registered) {
        registrar.give_up(gone)?;
    }
    *known = registered;

    let wanted: Vec<[u8; 32]> = view
        .registry
        .authorities
        .values()
        .filter(|authority| authority.phase != Phase::Retiring)
        .map(|authority| authority.sha256)
        .collect();
    let mut outcome = Ok(());
    for sha256 in wanted {
        match member.standing {
            Standing::Eligible => {
                if let Err(error) = registrar.fetch(&sha256).await {
                    outcome = Err(error);
                }
            }
            Standing::Learner | Standing::Leaving => give_up_if_others_hold(registrar, view, &sha256).await?,
        }
    }

    let shown = registrar.trust().shown()?;
    if member.standing != Standing::Leaving && is_due(&shown, active_sha256(view), registrar.now_ms()) {
        let (key_pem, request_pem) = authority::request()?;
        let certificate_pem = registrar.renew(&request_pem).await?;
        registrar.trust().show(&key_pem, &certificate_pem)?;
        tracing::info!("the node's certificate has been renewed");
    }
    outcome
}

/// Says, now and then, that it is time to have a certificate signed outside.
fn remind(registrar: &Registrar, reminded_ms: &mut Option<u64>) -> Result<(), SignError> {
    let (shown, now_ms) = (registrar.trust().shown()?, registrar.now_ms());
    let lately = reminded_ms.is_some_and(|at| now_ms.saturating_sub(at) < REMIND_MS);
    if is_due(&shown, None, now_ms) && !lately {
        *reminded_ms = Some(now_ms);
        tracing::warn!(
            ends = %time(shown.not_after_ms),
            "the node's certificate is to be renewed outside: `quorate certificate request`, then `quorate certificate install`"
        );
    }
    Ok(())
}

async fn give_up_if_others_hold(registrar: &Registrar, view: &View, sha256: &[u8; 32]) -> Result<(), SignError> {
    if registrar.held(sha256)?.is_none() {
        return Ok(());
    }
    if registrar.ask_to_hold(sha256, eligible(view, registrar.node)).await.iter().any(|(_, holds)| *holds) {
        registrar.give_up(sha256)?;
        tracing::info!("this node may not vote any more and has given up the authority's key");
    }
    Ok(())
}

/// Whether a certificate is to be renewed now. Also one that is not valid yet: it was signed by a wrong date (at a start, when no other
/// was known), and without another one the node would stay alone until that date comes.
fn is_due(shown: &Shown, active: Option<[u8; 32]>, now_ms: u64) -> bool {
    let validity = Validity { not_before_ms: shown.not_before_ms, not_after_ms: shown.not_after_ms };
    let life = validity.not_after_ms.saturating_sub(validity.not_before_ms);
    let due_ms = validity.not_before_ms.saturating_add(life / 3 * 2);
    now_ms < validity.not_before_ms || now_ms >= due_ms || active.is_some_and(|active| active != shown.authority_sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_or_when_the_authority_changes() {
        let shown = Shown { authority_sha256: [1; 32], not_before_ms: 1_000, not_after_ms: 4_000 };
        assert!(!is_due(&shown, Some([1; 32]), 2_999));
        assert!(is_due(&shown, Some([1; 32]), 3_000));
        assert!(is_due(&shown, Some([2; 32]), 1_000));
        assert!(!is_due(&shown, None, 1_000));
        assert!(is_due(&shown, None, 999), "signed by a date that has not come yet");
    }
}
