//! Scenes that chance does not show: each brings about, step by step, the one moment in which a rule of the protocol is
//! needed. What happens in it must be allowed all the same, so that every scenario also runs without a bug.

use super::{
    node::{Packet, Request},
    replica::{Change, TERMS},
    world::{Event, SECOND_US, World},
};
use machine::{limit::Rate, member::NodeId};

/// What a run is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// Faults, writes and requests by chance, and in half of the runs an adversary.
    #[default]
    Chance,
    /// Answers reach one node late; it spends what they brought at the last moment, cut off, while others take all that
    /// the cluster has.
    LateAnswers,
    /// A write is committed and acknowledged by a leader that nobody hears any more. Who leads next has it in its log and
    /// does not know that it is committed; requests come before it learns.
    UnknownCommit,
    /// A node with a slow clock is cut off from a leader with a fast one just after it was granted a lease, and decides
    /// requests to the end of it.
    SlowClock,
    /// Nothing but a steady load: for [`super::figures`].
    Steady(Steady),
}

/// A steady load on one bucket, by chance spread over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    /// The limit.
    pub rate: Rate,
    /// Requests a second, of all nodes together.
    pub per_second: u64,
    /// A node that does not lead crashes on the way and stays away.
    pub crashes: bool,
}

impl Scenario {
    /// All that judge; the others measure.
    pub const ALL: [Self; 4] = [Self::Chance, Self::LateAnswers, Self::UnknownCommit, Self::SlowClock];

    /// As the command line names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chance => "chance",
            Self::LateAnswers => "late-answers",
            Self::UnknownCommit => "unknown-commit",
            Self::SlowClock => "slow-clock",
            Self::Steady(_) => "steady",
        }
    }

    /// Its first scene, if it has any, and when it begins.
    pub(super) fn opening(self) -> Option<(u64, Scene)> {
        match self {
            Self::Chance | Self::LateAnswers => None,
            Self::UnknownCommit | Self::SlowClock => {
                Some((2 * SECOND_US, Scene::Leader { patience_us: 6 * SECOND_US }))
            }
            Self::Steady(_) => Some((2 * SECOND_US, Scene::Load)),
        }
    }
}

/// A step of a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scene {
    /// Waits for a leader, and for the moment that the scenario needs.
    Leader { patience_us: u64 },
    /// Waits until the write is acknowledged by the leader that nobody hears.
    Acknowledged { writes: usize, heir: NodeId, behind: NodeId, patience_us: u64 },
    /// The next request of a steady load.
    Load,
    /// Requests without limits to two nodes.
    Requests { to: [NodeId; 2], until_us: u64 },
}

/// Acknowledgements of the log from one node to another are late: leadership is confirmed late, nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct LateAcks {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) delay_us: u64,
}

impl World {
    pub(super) fn scene(&mut self, scene: Scene) {
        if self.real_us >= self.heals_us {
            return;
        }
        match scene {
            Scene::Leader { patience_us } => {
                let leader = self.nodes.values().find(|node| node.is_ready_leader()).map(|node| node.id);
                let Some(leader) = leader else {
                    if self.real_us < patience_us {
                        self.schedule(1_000, Event::Scene(scene));
                    }
                    return;
                };
                match self.scenario {
                    Scenario::UnknownCommit => self.commit_unheard(leader),
                    Scenario::SlowClock => self.cut_off_after_a_lease(leader, scene),
                    Scenario::Chance | Scenario::LateAnswers | Scenario::Steady(_) => {}
                }
            }
            Scene::Load => {
                let Scenario::Steady(load) = self.scenario else { return };
                let all: Vec<NodeId> = self.voters.iter().copied().filter(|id| !self.down.contains(id)).collect();
                if let Some(node) = self.random.pick(&all).copied() {
                    self.requests += 1;
                    self.request(node, &[0]);
                }
                let delay_us = self.random.between(0, 2 * SECOND_US / load.per_second.max(1));
                self.schedule(delay_us, Event::Scene(scene));
            }
            Scene::Acknowledged { writes, heir, behind, patience_us } => {
                if self.trace.acknowledged.len() > writes {
                    self.cut.remove(&(heir, behind));
                    self.cut.remove(&(behind, heir));
                    let delay_us = self.random.between(20_000, 200_000);
                    self.late_acks = Some(LateAcks { from: behind, to: heir, delay_us });
                    let until_us = self.real_us + 3 * SECOND_US;
                    self.schedule(1_000, Event::Scene(Scene::Requests { to: [heir, behind], until_us }));
                } else if self.real_us < patience_us {
                    self.schedule(1_000, Event::Scene(scene));
                }
            }
            Scene::Requests { to, until_us } => {
                for id in to {
                    let request = |process| Request::new(process, self.real_us, Vec::new(), false);
                    let Some(request) = self.nodes.get(&id).map(|node| request(node.process)) else { continue };
                    self.act(id, |node, context| node.go_on(request, context));
                }
                if self.real_us < until_us {
                    self.schedule(500, Event::Scene(scene));
                } else {
                    self.late_acks = None;
                    self.cut.clear();
                }
            }
        }
    }

    /// The leader commits a write with the help of one other, and nobody hears of it.
    fn commit_unheard(&mut self, leader: NodeId) {
        let mut others = self.voters.iter().copied().filter(|id| *id != leader);
        let (Some(heir), Some(behind)) = (others.next(), others.next()) else { return };
        self.isolate(behind);
        let writes = self.trace.acknowledged.len();
        self.writes += 1;
        let write = self.writes;
        self.act(leader, |node, context| node.write(write, Change::Revoke, context));
        // The write is on its way to the heir, whose acknowledgement comes back; what is sent from here on does not
        // arrive, and after that nothing does.
        self.cut.insert((leader, heir));
        self.schedule(20_000, Event::Cut(heir, leader));
        let patience_us = self.real_us + 4 * SECOND_US;
        self.schedule(1_000, Event::Scene(Scene::Acknowledged { writes, heir, behind, patience_us }));
    }

    /// Waits until a node with a slow clock holds a lease that is nearly new, cuts it off, and writes.
    fn cut_off_after_a_lease(&mut self, leader: NodeId, scene: Scene) {
        let is_fast = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.clock.rate_ppm > 0);
        if !is_fast(&leader) {
            return;
        }
        let slow = self.voters.iter().copied().find(|id| !is_fast(id));
        let Some(slow) = slow else { return };
        let left_us = self.nodes.get(&slow).map_or(0, |node| node.authority_us(self.real_us));
        if left_us + 5_000 < super::node::LEASE_US {
            self.schedule(500, Event::Scene(scene));
            return;
        }
        self.isolate(slow);
        self.writes += 1;
        let write = self.writes;
        self.act(leader, |node, context| node.write(write, Change::Revoke, context));
        let until_us = self.real_us + 3 * SECOND_US;
        self.schedule(1_000, Event::Scene(Scene::Requests { to: [slow, leader], until_us }));
    }

    /// How long a packet takes on top of what all take, if the scenario says so.
    pub(super) fn held_up_us(&mut self, from: NodeId, to: NodeId, packet: &Packet) -> Option<u64> {
        match (self.scenario, packet) {
            (Scenario::LateAnswers, Packet::Answered { .. }) if self.slow == Some(to) => {
                Some(self.random.between(200_000, TERMS.ttl_us / 2))
            }
            (Scenario::UnknownCommit, Packet::Raft(message)) if message.is_acknowledgement() => {
                self.late_acks.filter(|late| (late.from, late.to) == (from, to)).map(|late| late.delay_us)
            }
            _ => None,
        }
    }
}
