//! After a revocation was acknowledged, nothing that began afterwards is admitted by that credential, on any node.
//!
//! A node of which the acknowledgement says that it is not known (`pending`) is left out, and so are routes with
//! `when_isolated: serve` where it says that they are served. A node that it does not name joined later, or was let go
//! before, and is bound all the same.

use super::{Invariant, Verdict, joined};
use crate::history::{AdminOutcome, Event, Fenced, History, Text, What};
use std::collections::{BTreeMap, HashMap, HashSet};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct RevokedStaysRevoked;

/// The acknowledgement that ended a credential.
struct End<'a> {
    at_us: u64,
    fence: BTreeMap<u64, Fenced>,
    request: &'a str,
}

impl Invariant for RevokedStaysRevoked {
    fn name(&self) -> &'static str {
        "revoked_stays_revoked"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut ends: HashMap<&Text, Vec<End<'_>>> = HashMap::new();
        let mut serving: HashSet<&Text> = HashSet::new();
        for Event { at_us, what } in &history.events {
            match what {
                What::Admin(admin) => {
                    let AdminOutcome::Done { fence, .. } = &admin.outcome else { continue };
                    // Without a fence nothing was promised.
                    for credential in admin.ends.iter().filter(|_| !fence.is_empty()) {
                        let fence = fence.iter().copied().collect();
                        let end = End { at_us: *at_us, fence, request: &admin.request };
                        ends.entry(credential).or_default().push(end);
                    }
                }
                What::Route(route) if route.serves_isolated => drop(serving.insert(&route.name)),
                _ => {}
            }
        }
        if ends.is_empty() {
            return Verdict::Vacuous { why: "nothing was revoked with a fence".to_owned() };
        }
        let mut checked = 0;
        for joined in joined::requests(history) {
            let request = joined.request;
            for end in ends.get(&request.credential).into_iter().flatten() {
                let said = end.fence.get(&request.node);
                let bound = match said {
                    Some(Fenced::Applied | Fenced::Expired) | None => true,
                    Some(Fenced::ServingIsolated) => !serving.contains(&request.route),
                    Some(Fenced::Pending) => false,
                };
                if !bound || request.began_us <= end.at_us {
                    continue;
                }
                checked += 1;
                if joined.is_admitted() {
                    let why = format!(
                        "request {} by {} was admitted by node {}; it began {} us after the acknowledgement of the write \
                         {} that ended the credential, whose fence says {said:?} of the node",
                        request.request,
                        request.credential,
                        request.node,
                        request.began_us.saturating_sub(end.at_us),
                        end.request,
                    );
                    return Verdict::Violated { at_us: request.began_us, why };
                }
            }
        }
        match checked {
            0 => Verdict::Vacuous { why: "no credential was shown after it was revoked".to_owned() },
            checked => Verdict::Held { checked },
        }
    }
}
