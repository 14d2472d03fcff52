//! A model of Raft, small enough to be read at once: the log is sent whole, so that there is nothing to go wrong in
//! indexes. It has what the session stands on: terms, elections by up-to-date logs, commit by a majority in the own
//! term, and rounds that confirm leadership. The real consensus is tested elsewhere.

use imbl::Vector;
use machine::member::NodeId;
use std::{collections::BTreeMap, sync::Arc};

/// One entry of the log.
#[derive(Debug)]
pub struct LogEntry<P> {
    /// The term of the leader that made it.
    pub term: u64,
    /// What it says.
    pub payload: P,
}

/// The log: entry number 1 is at place 0.
pub type Log<P> = Vector<Arc<LogEntry<P>>>;

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk<P: Clone> {
    term: u64,
    voted_for: Option<NodeId>,
    log: Log<P>,
    /// The term of the leader from which the log was taken last.
    log_term: u64,
}

impl<P: Clone> Default for Disk<P> {
    fn default() -> Self {
        Self { term: 0, voted_for: None, log: Log::new(), log_term: 0 }
    }
}

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub enum Message<P: Clone> {
    /// Asks for a vote.
    Vote { term: u64, last: (u64, usize) },
    /// Answers.
    Voted { term: u64, granted: bool },
    /// The whole log, and a round that confirms leadership.
    Append { term: u64, log: Log<P>, commit: usize, round: u64 },
    /// Answers.
    Appended { term: u64, len: usize, round: u64 },
}

impl<P: Clone> Message<P> {
    /// Whether it says that the log has arrived.
    pub const fn is_acknowledgement(&self) -> bool {
        matches!(self, Self::Appended { .. })
    }
}

/// What one node does in a term.
#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate(Vec<NodeId>),
    Leader { matched: BTreeMap<NodeId, usize>, rounds: BTreeMap<NodeId, u64> },
}

/// One node's part in consensus. `P` is what entries say.
#[derive(Debug)]
pub struct Consensus<P: Clone> {
    id: NodeId,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    disk: Disk<P>,
    role: Role,
    commit: usize,
    leader: Option<NodeId>,
    /// Local time of the next election, or as leader of the next heartbeat.
    due_us: u64,
    round: u64,
}

/// How often a leader is heard of.
pub const HEARTBEAT_US: u64 = 60_000;
/// The longest time after which a follower stands for election.
pub const ELECTION_MAX_US: u64 = 500_000;

impl<P: Clone> Consensus<P> {
    /// A node that starts with what its disk holds. `jitter` spreads elections.
    pub fn start(id: NodeId, voters: &[NodeId], learners: &[NodeId], disk: Disk<P>, now_us: u64, jitter: u64) -> Self {
        Self {
            id,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            disk,
            role: Role::Follower,
            commit: 0,
            leader: None,
            due_us: now_us + election_us(jitter),
            round: 0,
        }
    }

    /// What would survive a crash now.
    pub const fn disk(&self) -> &Disk<P> {
        &self.disk
    }

    /// The current term.
    pub const fn term(&self) -> u64 {
        self.disk.term
    }

    /// Whether this node leads, as far as it knows.
    pub const fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    /// Who leads, as far as this node knows.
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// How many entries are committed, as far as this node knows.
    pub const fn commit(&self) -> usize {
        self.commit
    }

    /// A learner has been removed: it learns no more.
    pub fn stop_sending(&mut self, node: NodeId) {
        self.learners.retain(|learner| *learner != node);
    }

    /// An entry by its number, from 1.
    pub fn entry(&self, number: usize) -> Option<&Arc<LogEntry<P>>> {
        self.disk.log.get(number.checked_sub(1)?)
    }

    /// Whether the last committed entry is of the own term.
    pub fn has_committed_in_term(&self) -> bool {
        self.entry(self.commit).is_some_and(|entry| entry.term == self.disk.term)
    }

    /// Adds an entry as leader and sends it. Returns its number.
    pub fn propose(&mut self, payload: P, out: &mut Vec<(NodeId, Message<P>)>) -> usize {
        self.disk.log.push_back(Arc::new(LogEntry { term: self.disk.term, payload }));
        self.begin_round(out);
        self.disk.log.len()
    }

    /// Asks everybody whether this node still leads. Returns the number of the round.
    pub fn begin_round(&mut self, out: &mut Vec<(NodeId, Message<P>)>) -> u64 {
        self.round += 1;
        for peer in self.voters.iter().chain(&self.learners).filter(|peer| **peer != self.id) {
            let (log, commit) = (self.disk.log.clone(), self.commit);
            out.push((*peer, Message::Append { term: self.disk.term, log, commit, round: self.round }));
        }
        let (id, len, round) = (self.id, self.disk.log.len(), self.round);
        self.acknowledge(id, len, round);
        round
    }

    /// The last round that a majority has confirmed.
    pub fn confirmed_round(&self) -> u64 {
        let Role::Leader { rounds, .. } = &self.role else { return 0 };
        majority(self.voters.iter().map(|voter| rounds.get(voter).copied().unwrap_or(0)))
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_us: u64, jitter: u64, out: &mut Vec<(NodeId, Message<P>)>) {
        if now_us < self.due_us || !self.voters.contains(&self.id) {
            return;
        }
        if self.leads() {
            self.due_us = now_us + HEARTBEAT_US;
            self.begin_round(out);
            return;
        }
        self.disk.term += 1;
        self.disk.voted_for = Some(self.id);
        self.leader = None;
        self.role = Role::Candidate(vec![self.id]);
        self.due_us = now_us + election_us(jitter);
        for peer in self.voters.iter().filter(|peer| **peer != self.id) {
            out.push((*peer, Message::Vote { term: self.disk.term, last: self.last() }));
        }
    }

    /// Takes a message. Returns whether this node has just become leader.
    pub fn receive(
        &mut self,
        from: NodeId,
        message: Message<P>,
        now_us: u64,
        jitter: u64,
        out: &mut Vec<(NodeId, Message<P>)>,
    ) -> bool {
        let term = match &message {
            Message::Vote { term, .. }
            | Message::Voted { term, .. }
            | Message::Append { term, .. }
            | Message::Appended { term, .. } => *term,
        };
        if term > self.disk.term {
            self.disk.term = term;
            self.disk.voted_for = None;
            self.leader = None;
            self.role = Role::Follower;
        }
        match message {
            Message::Vote { term, last } => {
                let free = self.disk.voted_for.is_none_or(|voted| voted == from);
                let granted = term == self.disk.term && free && last >= self.last();
                if granted {
                    self.disk.voted_for = Some(from);
                    self.due_us = now_us + election_us(jitter);
                }
                out.push((from, Message::Voted { term: self.disk.term, granted }));
            }
            Message::Voted { term, granted } => {
                let Role::Candidate(votes) = &mut self.role else { return false };
                if term == self.disk.term && granted && !votes.contains(&from) {
                    votes.push(from);
                    if votes.len() * 2 > self.voters.len() {
                        self.role = Role::Leader { matched: BTreeMap::new(), rounds: BTreeMap::new() };
                        self.leader = Some(self.id);
                        self.due_us = now_us + HEARTBEAT_US;
                        self.round = 0;
                        return true;
                    }
                }
            }
            Message::Append { term, log, commit, round } => {
                if term == self.disk.term {
                    self.role = Role::Follower;
                    self.leader = Some(from);
                    self.due_us = now_us + election_us(jitter);
                    // A leader's log only grows: an older message of it must not take anything back.
                    if self.disk.log_term < term || self.disk.log.len() < log.len() {
                        self.disk.log = log;
                        self.disk.log_term = term;
                    }
                    self.commit = self.commit.max(commit.min(self.disk.log.len()));
                    out.push((from, Message::Appended { term, len: self.disk.log.len(), round }));
                }
            }
            Message::Appended { term, len, round } => {
                if term == self.disk.term {
                    self.acknowledge(from, len, round);
                }
            }
        }
        false
    }

    fn acknowledge(&mut self, from: NodeId, len: usize, round: u64) {
        let Role::Leader { matched, rounds } = &mut self.role else { return };
        let known = matched.entry(from).or_default();
        *known = len.max(*known);
        let known = rounds.entry(from).or_default();
        *known = round.max(*known);
        let agreed = majority(self.voters.iter().map(|voter| matched.get(voter).copied().unwrap_or(0)));
        let of_own_term = agreed.checked_sub(1).and_then(|place| self.disk.log.get(place));
        if of_own_term.is_some_and(|entry| entry.term == self.disk.term) {
            self.commit = self.commit.max(agreed);
        }
    }

    fn last(&self) -> (u64, usize) {
        (self.disk.log.last().map_or(0, |entry| entry.term), self.disk.log.len())
    }
}

/// The largest number that more than half of these have reached.
fn majority<N: Ord + Copy + Default>(reached: impl Iterator<Item = N>) -> N {
    let mut reached: Vec<N> = reached.collect();
    reached.sort_unstable();
    reached.get(reached.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

const fn election_us(jitter: u64) -> u64 {
    ELECTION_MAX_US / 2 + jitter % (ELECTION_MAX_US / 2)
}
