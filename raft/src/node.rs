//! A running member: everything that it holds, its tasks, and its beginning and end. What it can be asked is in
//! `forward` (by anybody), `lead` (of a leader) and here (of itself).

use crate::{
    adapt::{
        engine::{Engine, Standing, WriteError},
        log::Log,
        machine::Machine,
        network::Network,
        server::RaftService,
    },
    allowances::{AllowanceCaps, Allowances},
    applied::Applied,
    batch::{self, Batcher},
    clock::Clock,
    digest::{Digest, Marks},
    disk::Disk,
    ground::Ground,
    handle::{AuditPage, Fence, ProposeError, Services},
    lead::Grant,
    membership,
    mutation::{self, Mutation},
    peers::Peers,
    publish,
    session::{
        clock::HeardTime,
        report,
        server::LeaderService,
        steward::{self, Outbox},
        tenure::{self, Tenure},
    },
    start::{Callers, Certificate, Folders, Start, StartError},
    status::{LocalStatus, Role, Session},
    timing::{Timing, Upkeep},
    types::lock,
    upkeep,
    vault::{Vault, VaultError},
};
use ::session::lease::{Authority, Lease};
use futures::{FutureExt, future::BoxFuture};
use imbl::OrdMap;
use machine::{
    Actor, At, Command, Outcome, Refusal, RequestId, View, Wall,
    allowance::Answer,
    bucket::Incarnation,
    command::Initialize,
    member::{MemberSpec, NodeId},
};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// How long a stopping node waits for its own tasks and for the log to be let go.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long a stopping node waits for its session to begin or end: only so that others need not find out by silence.
const SESSION_PATIENCE: Duration = Duration::from_millis(500);

/// A running member.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) timing: Timing,
    pub(crate) upkeep: Upkeep,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) callers: Callers,
    pub(crate) certificate: watch::Receiver<Certificate>,
    pub(crate) engine: Engine,
    pub(crate) peers: Arc<Peers>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) batcher: Batcher,
    marks: Arc<Marks>,
    log: Mutex<Option<Log>>,
    applied: watch::Receiver<Arc<Applied>>,
    views: watch::Receiver<Arc<View>>,
    enforced: watch::Sender<u64>,
    /// What workers read before they admit a request, and its keeper.
    authority: Arc<Authority>,
    lease: Arc<Mutex<Lease>>,
    allowances: Arc<Allowances>,
    outbox: Outbox,
    tenure: watch::Sender<Option<Arc<Tenure>>>,
    spec: watch::Sender<MemberSpec>,
    stopping: watch::Sender<bool>,
    heard: Arc<Mutex<Heard>>,
    pub(crate) disk: Arc<Disk>,
    held: Mutex<&'static str>,
    tasks: Mutex<JoinSet<()>>,
}

/// What this node heard of its leader.
struct Heard {
    session: Session,
    time: HeardTime,
    at_us: Option<u64>,
    /// What was committed when the present session began.
    committed: Option<u64>,
}

impl Node {
    pub(crate) async fn start(start: Start) -> Result<Arc<Self>, StartError> {
        let Start {
            node,
            spec,
            folders,
            expect_data,
            peers,
            timing,
            upkeep,
            dial,
            clock,
            publish,
            certificate,
            callers,
            ground,
        } = start;
        timing.check()?;
        let (opened, on) = (folders.clone(), ground.clone());
        let opened = ground.blocking().run(move || open(&opened, &on, expect_data)).await;
        let opened = opened.map_err(|error| StartError::Disk(error.to_string()))??;
        let Opened { log, stepping, vault, applied } = opened;
        if let Some(stepping) = stepping {
            tokio::spawn(stepping);
        }

        let marks = Arc::new(Marks::new(upkeep.digest_entries));
        let machine = Machine::new(&applied, Arc::clone(&vault), Arc::clone(&marks));
        let (applied, views) = machine.watch();
        let peers = Arc::new(Peers::new(dial, timing.dial, peers));
        let network = Network {
            node,
            peers: Arc::clone(&peers),
            vault: Arc::clone(&vault),
            applied: applied.clone(),
            stall: timing.election_max,
        };
        let room = matches!(ground, Ground::System).then(|| folders.log.clone());
        let disk = Arc::new(Disk::new(room, upkeep.disk_low_bytes, log.shortage()));
        let engine = Engine::open(node, &timing, &upkeep, network, log.clone(), machine).await?;
        let (batcher, intake) = Batcher::new();
        let (pace, caps) = (timing.pace(), AllowanceCaps::default());
        let allowances = Arc::new(Allowances::new(node, incarnation(), pace, caps, Arc::clone(&clock)));
        let heard = Heard { session: Session::Seeking, time: HeardTime::default(), at_us: None, committed: None };
        let node = Arc::new(Self {
            id: node,
            timing,
            upkeep,
            clock,
            callers,
            certificate,
            engine,
            peers,
            vault,
            batcher,
            marks,
            log: Mutex::new(Some(log)),
            applied,
            views,
            enforced: watch::Sender::new(0),
            authority: Arc::default(),
            lease: Arc::default(),
            allowances,
            outbox: Outbox::default(),
            tenure: watch::Sender::new(None),
            spec: watch::Sender::new(spec),
            stopping: watch::Sender::new(false),
            heard: Arc::new(Mutex::new(heard)),
            disk,
            held: Mutex::new(""),
            tasks: Mutex::new(JoinSet::new()),
        });
        node.spawn(publish, intake);
        Ok(node)
    }

    /// Every task that this node runs. They end with it, at the latest in [`Node::stop`].
    fn spawn(self: &Arc<Self>, publish: crate::start::Publish, intake: batch::Intake) {
        let (heard, clock) = (Arc::clone(&self.heard), Arc::clone(&self.clock));
        let heard_wall = move || {
            let time = lock(&heard).time;
            time.is_heard().then(|| time.now(clock.boot_us()).wall)
        };
        let mut tasks = lock(&self.tasks);
        tasks.spawn(tenure::keep(
            self.tenure.clone(),
            self.engine.watch(),
            self.applied.clone(),
            heard_wall,
            self.timing.clone(),
            Arc::clone(&self.clock),
        ));
        let (authority, lease) = (Arc::clone(&self.authority), Arc::clone(&self.lease));
        let put_in_force = move |index| lock(&lease).enforced(&authority, index);
        tasks.spawn(publish::publish(self.applied.clone(), publish, self.enforced.clone(), put_in_force));
        let terms = self.timing.terms();
        tasks.spawn(batch::run(
            self.engine.clone(),
            intake,
            self.tenure.subscribe(),
            self.engine.watch(),
            terms,
            Arc::clone(&self.disk),
        ));
        tasks.spawn(addresses(Arc::clone(&self.peers), self.applied.clone(), self.engine.watch()));
        tasks.spawn(report::report(Arc::clone(self)));
        tasks.spawn(steward::ask(Arc::clone(self)));
        tasks.spawn(steward::follow_limits(Arc::clone(self)));
        tasks.spawn(membership::follow(Arc::clone(self)));
        tasks.spawn(upkeep::keep(Arc::clone(self)));
    }

    /// See [`crate::Handle::bootstrap`].
    pub(crate) async fn bootstrap(&self, initialize: Initialize) -> Result<Outcome, ProposeError> {
        let registry = &self.view().registry;
        if registry.is_initialized() {
            let same = registry.cluster == initialize.cluster;
            let done = Outcome::Done { revision: registry.revision };
            return Ok(if same { done } else { Outcome::Refused(Refusal::AlreadyInitialized) });
        }
        let address = initialize.member.address.clone();
        self.engine.initialize(self.id, address).await.map_err(|_: WriteError| ProposeError::Stopped)?;
        let cluster = initialize.cluster;
        let random = u128::from_be_bytes(initialize.cluster);
        let request = RequestId { issued: Wall(self.clock.utc_ms()), random };
        let command = Command::Initialize(Box::new(initialize));
        let outcome = self.propose(request, Actor::Bootstrap, command, Fence::None).await?.outcome;
        let registry = &self.view().registry;
        if outcome == Outcome::Refused(Refusal::AlreadyInitialized) && registry.cluster == cluster {
            // An earlier try was done after all.
            return Ok(Outcome::Done { revision: registry.revision });
        }
        Ok(outcome)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    pub(crate) fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.applied.borrow())
    }

    pub(crate) fn watch_applied(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.clone()
    }

    pub(crate) fn standing(&self) -> Arc<Standing> {
        self.engine.standing()
    }

    pub(crate) fn watch_standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.engine.watch()
    }

    pub(crate) fn watch_leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.engine.watch_leader()
    }

    pub(crate) fn tenure(&self) -> Option<Arc<Tenure>> {
        self.tenure.borrow().clone()
    }

    pub(crate) fn watch_tenure(&self) -> watch::Receiver<Option<Arc<Tenure>>> {
        self.tenure.subscribe()
    }

    pub(crate) fn enforced(&self) -> u64 {
        if mutation::is(Mutation::SaysItEnforcesTheLog) {
            return self.standing().last_index;
        }
        *self.enforced.borrow()
    }

    /// This node's authority to admit requests.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// What this node may spend of the cluster's limits.
    pub(crate) fn allowances(&self) -> Arc<Allowances> {
        Arc::clone(&self.allowances)
    }

    /// What this node asks of the limits.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The leader has answered what this node asked of the limits.
    pub(crate) fn answered(&self, request: u64, answer: &Answer) {
        if mutation::is(Mutation::OneTokenTooMany) {
            let mut answer = answer.clone();
            for grant in &mut answer.grants {
                grant.amount += 1;
            }
            self.outbox.answered(&self.allowances, &*self.clock, request, &answer);
            return;
        }
        self.outbox.answered(&self.allowances, &*self.clock, request, answer);
    }

    /// The leader has granted this. `sent_us` is from before the report was sent that asked for it.
    pub(crate) fn granted(&self, sent_us: u64, grant: Grant) {
        let Grant { mut ttl_us, mut read_index } = grant;
        if mutation::is(Mutation::ShortLeases) {
            ttl_us /= 8;
        }
        if mutation::is(Mutation::LeaseBeforeTheState) {
            read_index = 0;
        }
        lock(&self.lease).granted(&self.authority, sent_us, ttl_us, read_index);
    }

    pub(crate) fn watch_enforced(&self) -> watch::Receiver<u64> {
        self.enforced.subscribe()
    }

    pub(crate) fn spec(&self) -> MemberSpec {
        self.spec.borrow().clone()
    }

    pub(crate) fn watch_spec(&self) -> watch::Receiver<MemberSpec> {
        self.spec.subscribe()
    }

    pub(crate) fn set_spec(&self, spec: MemberSpec) {
        self.spec.send_replace(spec);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(crate) fn watch_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(crate) fn disk_low(&self) -> bool {
        self.disk.is_low()
    }

    pub(crate) fn appended_bytes(&self) -> u64 {
        lock(&self.log).as_ref().map_or(0, Log::appended_bytes)
    }

    /// Whether the registry or raft knows this node and it is not gone for good.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        use machine::member::Standing;
        let known_to_raft = self.standing().peers.contains_key(&node);
        match self.view().registry.members.get(&node) {
            Some(member) => member.standing != Standing::Leaving || known_to_raft,
            None => known_to_raft,
        }
    }

    /// Who leads and where, for one who asked the wrong node; 0 and nothing if that is not known.
    pub(crate) fn leader_hint(&self) -> (NodeId, String) {
        let standing = self.standing();
        let Some(leader) = standing.leader.filter(|leader| *leader != self.id) else { return (0, String::new()) };
        let address = match self.view().registry.members.get(&leader) {
            Some(member) => member.address.clone(),
            None => standing.peers.get(&leader).cloned().unwrap_or_default(),
        };
        (leader, address)
    }

    /// Why a change of members waits, from now on; returns why it did until now.
    pub(crate) fn hold(&self, why: &'static str) -> &'static str {
        std::mem::replace(&mut *lock(&self.held), why)
    }

    /// Why a change of members waits; empty if none does.
    pub(crate) fn held(&self) -> &'static str {
        *lock(&self.held)
    }

    /// The leader has answered a report that was sent then. When the session began, this much was committed.
    pub(crate) fn hear(&self, at: At, sent_us: u64, committed: u64) {
        let mut heard = lock(&self.heard);
        heard.time.hear(at, self.clock.boot_us());
        heard.at_us = Some(sent_us);
        heard.committed = Some(committed);
    }

    pub(crate) fn session_is(&self, session: Session) {
        let mut heard = lock(&self.heard);
        match (heard.session, session) {
            // Who was removed has soon nobody to tell it so again.
            (Session::Removed, Session::Seeking | Session::Removed) => return,
            (_, Session::Removed) => tracing::warn!("the cluster has removed this node"),
            _ => {}
        }
        heard.session = session;
        if session != Session::Open {
            heard.committed = None;
        }
    }

    pub(crate) fn heard_wall(&self) -> Option<Wall> {
        let is_known = self.tenure().is_some() || lock(&self.heard).time.is_heard();
        is_known.then(|| self.time().wall)
    }

    pub(crate) fn time(&self) -> At {
        if let Some(tenure) = self.tenure() {
            return tenure.time(&self.standing().voters);
        }
        let heard = lock(&self.heard).time;
        if heard.is_heard() {
            return heard.now(self.clock.boot_us());
        }
        // Nobody has said anything yet: what the log says, or this machine's own date if that is later. A key that has
        // ended is then refused even by a node that comes up alone.
        let last = self.view().at;
        At { tick: last.tick, wall: last.wall.max(Wall(self.clock.utc_ms())) }
    }

    pub(crate) fn local(&self) -> LocalStatus {
        let standing = self.standing();
        let applied = self.applied();
        let (session, heard_us, committed) = {
            let heard = lock(&self.heard);
            (heard.session, heard.at_us, heard.committed)
        };
        let leads = standing.role == Role::Leader;
        let heard_ms = heard_us.map(|heard_us| self.clock.boot_us().saturating_sub(heard_us) / 1000);
        LocalStatus {
            node: self.id,
            role: standing.role,
            term: standing.term,
            leader: standing.leader,
            voter: standing.voters.contains(&self.id),
            last_index: standing.last_index,
            committed: standing.committed,
            applied: applied.index(),
            enforced: self.enforced(),
            snapshot: standing.snapshot,
            session,
            leader_heard_ms: if leads { self.engine.quorum_heard_ms() } else { heard_ms },
            authority_ms: self.authority.remaining_us(self.clock.boot_us()) / 1000,
            at: self.time(),
            caught_up: committed.is_some_and(|committed| self.enforced() >= committed),
            disk_low: self.disk_low(),
            failed: standing.failed.clone(),
        }
    }

    pub(crate) fn services(self: &Arc<Self>) -> Services {
        let raft = RaftService::new(self.engine.raft(), Arc::clone(&self.vault), Arc::clone(&self.disk), self.callers);
        Services { raft: raft.server(), leader: LeaderService::new(self).server() }
    }

    pub(crate) fn audit(&self, from: u64, limit: usize) -> AuditPage {
        let state = &self.applied().state;
        let entries = state.audit.range(from..).take(limit).map(|(number, entry)| (*number, Arc::clone(entry)));
        AuditPage {
            entries: entries.collect(),
            oldest: state.audit.get_min().map_or(state.next_audit, |(number, _)| *number),
            next: state.next_audit,
        }
    }

    /// See [`crate::Handle::digests`].
    pub(crate) fn digests(&self) -> io::Result<Option<Vec<(u64, Digest)>>> {
        if !self.marks.are_kept() {
            return Ok(None);
        }
        let mut digests = self.marks.digests()?;
        let now = self.applied();
        if digests.iter().all(|(index, _)| *index != now.index()) {
            digests.extend(self.marks.standing(now.index(), &now.state)?.map(|digest| (now.index(), digest)));
        }
        Ok(Some(digests))
    }

    pub(crate) async fn failed(&self) -> String {
        let mut standing = self.watch_standing();
        let failed = standing.wait_for(|now| now.failed.is_some()).await.map(|now| now.failed.clone());
        match lock(&self.log).as_ref().and_then(Log::failure) {
            Some(error) if error.is_full() => format!(
                "{error}. Make room on that file system and start the node again: nothing that was acknowledged is lost"
            ),
            _ => failed.ok().flatten().unwrap_or_else(|| "raft has stopped".to_owned()),
        }
    }

    pub(crate) async fn stop(self: &Arc<Self>) {
        // While there is a leader who can take it. The caller has drained its workers.
        steward::give_back(self).await;
        if let Some(tenure) = self.tenure()
            && let Some(heir) = self.heir(&tenure)
        {
            match self.lead_transfer(Some(heir)).await {
                Ok(leader) => {
                    tracing::info!(leader, "leadership is handed over");
                    // The new leader must know this node before it can be told goodbye.
                    self.wait_for_session(|session| session == Session::Open).await;
                }
                Err(why) => tracing::warn!(?why, "leadership could not be handed over: an election will"),
            }
        }
        // Before the goodbye says so.
        lock(&self.lease).give_up(&self.authority);
        if self.stopping.send_replace(true) {
            return;
        }
        // The goodbye goes out first; then raft ends, and with it every task that watches it.
        self.wait_for_session(|session| session != Session::Open).await;
        self.engine.stop().await;
        if let Err(error) = upkeep::checkpoint(self).await {
            tracing::warn!(%error, "no checkpoint could be written; the log has everything");
        }
        let patience = Instant::now() + STOP_PATIENCE;
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.abort_all();
        while let Ok(Some(_)) = tokio::time::timeout_at(patience, tasks.join_next()).await {}
        self.vault.close();
        let log = lock(&self.log).take();
        if let Some(log) = log
            && !log.let_go(patience).await
        {
            tracing::warn!("somebody still holds the log");
        }
    }

    /// Waits for the session to be like this, for a moment.
    async fn wait_for_session(&self, wanted: impl Fn(Session) -> bool) {
        let until = Instant::now() + SESSION_PATIENCE;
        while !wanted(lock(&self.heard).session) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A number for this process that none before it had: random, as the keys of the standard library's hash maps are.
fn incarnation() -> Incarnation {
    RandomState::new().hash_one(std::process::id())
}

/// What the disk holds.
struct Opened {
    log: Log,
    /// What writes the log, if it has no thread for that.
    stepping: Option<BoxFuture<'static, ()>>,
    vault: Arc<Vault>,
    applied: Applied,
}

/// Reads what the disk holds, and whether it fits together.
fn open(folders: &Folders, ground: &Ground, expect_data: bool) -> Result<Opened, StartError> {
    let settings = storage::LogSettings::default();
    let (store, stepper) = match ground {
        Ground::System => (storage::Log::open(&folders.log, settings).map_err(VaultError::from)?, None),
        Ground::Simulated(ground) => {
            // Small segments: otherwise nothing would ever be removed.
            let settings = storage::LogSettings { segment_bytes: 64 << 10, reserve_bytes: 0, ..settings };
            let files = Arc::clone(&ground.files);
            let (store, stepper) =
                storage::Log::open_stepped(files, &folders.log, settings).map_err(VaultError::from)?;
            (store, Some((stepper, Arc::clone(&ground.pause))))
        }
    };
    if store.torn_bytes() > 0 {
        tracing::info!(bytes = store.torn_bytes(), "what was being written when this node ended is cut off the log");
    }
    let (log, stepping) = match stepper {
        None => (Log::new(store), None),
        Some((stepper, pause)) => {
            let (log, stepping) = Log::stepped(store, stepper, pause);
            (log, Some(stepping.boxed()))
        }
    };
    let (vault, applied) = Vault::open(folders, ground)?;
    let has_state = applied.last.is_some() || vault.newest().is_some();
    if !log.has_vote() && (has_state || expect_data) {
        return Err(StartError::Damaged(format!(
            "{}: the log is gone. This node may have voted and promised what it no longer knows: remove it from the \
             cluster and join it again with an empty data directory",
            folders.log.display()
        )));
    }
    Ok(Opened { log, stepping, vault: Arc::new(vault), applied })
}

/// Tells the dialer where peers are, as the registry and raft's membership change.
async fn addresses(
    peers: Arc<Peers>,
    mut applied: watch::Receiver<Arc<Applied>>,
    mut standing: watch::Receiver<Arc<Standing>>,
) {
    let (mut known, mut joined) = (OrdMap::new(), BTreeMap::new());
    loop {
        let members = applied.borrow_and_update().state.registry.members.clone();
        if !members.ptr_eq(&known) {
            peers.set_registry(members.iter().map(|(id, member)| (*id, member.address.clone())).collect());
            known = members;
        }
        {
            let standing = standing.borrow_and_update();
            if standing.peers != joined {
                joined.clone_from(&standing.peers);
                peers.set_membership(joined.clone());
            }
        }
        let ended = tokio::select! {
            changed = applied.changed() => changed.is_err(),
            changed = standing.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

impl From<VaultError> for StartError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Storage(
                error @ (storage::Error::Io { .. } | storage::Error::Full { .. } | storage::Error::Locked { .. }),
            ) => Self::Disk(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}
