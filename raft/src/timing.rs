//! Every duration and size that consensus works with, in two profiles. Heartbeats, elections and sessions are set
//! together, because they only make sense together.

use crate::start::StartError;
use ::session::ledger::Pace;
use machine::bucket::Terms;
use std::time::Duration;

/// What lies between the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One site: round trips of a few milliseconds.
    #[default]
    Lan,
    /// Several sites: round trips up to some 200 milliseconds.
    Wan,
}

/// How fast consensus beats, and how long its callers wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// The shortest silence after which a voter seeks election.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// How often a node reports to the leader, at least.
    pub report: Duration,
    /// How long an authority lease lasts: for so long can a node that was cut off hold a write up. It must outlast a
    /// change of leader, see [`Timing::check`].
    pub lease: Duration,
    /// A member that the leader has not heard of for longer is unreachable.
    pub silence: Duration,
    /// How long a proposal may take to commit, forwarding and retries included.
    pub propose: Duration,
    /// How long a read may take, forwarding and retries included.
    pub read: Duration,
    /// How long dialing a peer may take.
    pub dial: Duration,
}

impl Timing {
    /// The durations of a profile.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Lan => Self {
                heartbeat: Duration::from_millis(75),
                election_min: Duration::from_millis(300),
                election_max: Duration::from_millis(600),
                report: Duration::from_millis(200),
                lease: Duration::from_millis(2000),
                silence: Duration::from_secs(2),
                propose: Duration::from_secs(10),
                read: Duration::from_secs(5),
                dial: Duration::from_secs(2),
            },
            Profile::Wan => Self {
                heartbeat: Duration::from_millis(400),
                election_min: Duration::from_millis(1500),
                election_max: Duration::from_millis(3000),
                report: Duration::from_millis(500),
                lease: Duration::from_millis(9500),
                silence: Duration::from_secs(4),
                propose: Duration::from_secs(20),
                read: Duration::from_secs(10),
                dial: Duration::from_secs(5),
            },
        }
    }

    /// Whether an ordinary change of leader isolates nobody: a lease that was renewed as late as can be must outlast
    /// three elections.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let needed = self.report + self.election_max * 3;
        if self.lease < needed {
            return Err(StartError::Settings(format!(
                "the timing profile: a lease of {:?} does not outlast a report and three elections, {needed:?}",
                self.lease
            )));
        }
        Ok(())
    }

    pub(crate) fn lease_us(&self) -> u64 {
        micros(self.lease)
    }

    /// How long allowances last: as long as authority does, so that a node that was cut off takes neither along for
    /// longer.
    pub(crate) fn terms(&self) -> Terms {
        // Cluster time is slowed by the assumed drift, so the margin has only to cover rounding.
        Terms { ttl_us: self.lease_us(), margin_us: 1_000 }
    }

    /// How this node asks for allowances.
    pub(crate) fn pace(&self) -> Pace {
        let lease_us = self.lease_us();
        Pace {
            cycle_us: 5_000,
            renew_us: 1_000_000.min(lease_us / 2),
            // The election itself, and then the session with the new leader.
            election_us: micros(self.election_max * 3 / 2),
            // Before it ends by itself: of a rate, what was left then counts as spent.
            idle_us: lease_us / 4 * 3,
            // What is granted after that could not be spent any more.
            patience_us: lease_us,
            return_us: lease_us / 10,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Default for Timing {
    fn default() -> Self {
        Self::of(Profile::Lan)
    }
}

/// When the state goes to disk, and when the log is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// A checkpoint is written after so many bytes of applied log.
    pub checkpoint_bytes: u64,
    /// A checkpoint is written this long after the last one, if anything has changed.
    pub checkpoint_every: Duration,
    /// A snapshot file is written after so many bytes of applied log, or as many as the last snapshot had if that is
    /// more: then a large state is not written again for a small change.
    pub snapshot_bytes: u64,
    /// A snapshot file is written after so many applied entries, whatever their size: bounds the replay at start.
    pub snapshot_entries: u64,
    /// So many entries before the last snapshot stay in the log, so that a node that was away for a moment catches up
    /// from the log.
    pub keep_entries: u64,
    /// Every so many entries the state is set aside, so that its digest can be asked for; 0 for never.
    pub digest_entries: u64,
    /// Writes are refused while the disk has less room than this.
    pub disk_low_bytes: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            checkpoint_bytes: 8 * 1024 * 1024,
            checkpoint_every: Duration::from_secs(30),
            snapshot_bytes: 64 * 1024 * 1024,
            snapshot_entries: 200_000,
            keep_entries: 2_000,
            digest_entries: 0,
            disk_low_bytes: 128 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_outlast_elections() {
        for profile in [Profile::Lan, Profile::Wan] {
            Timing::of(profile).check().unwrap();
        }
        let short = Timing { lease: Duration::from_secs(1), ..Timing::default() };
        assert!(matches!(short.check(), Err(StartError::Settings(_))));
    }
}
