//! A node's workers, as the data plane works: clock, lease, View, limits, in this order. Any two of these steps may be far apart.

use super::{
    Mutation,
    clock::now_us,
    record::Admit,
    seat::{Phase, Seat, lock},
};
use chaos::history::{Arrival, Logged, Request, RequestOutcome, Text, What};
use futures::FutureExt as _;
use machine::{Name, View, allowance::BucketId};
use raft::{Clock as _, Handle, Publish, Slot, Verdict, admit};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

/// As the product waits.
const WAIT: Duration = Duration::from_millis(250);

/// A route, and the limits of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) name: &'static str,
    pub(super) limits: &'static [&'static str],
}

/// Every route.
pub(super) const ROUTES: [Route; 5] = [
    Route { name: "open", limits: &[] },
    Route { name: "rated", limits: &["rate"] },
    Route { name: "scarce", limits: &["scarce"] },
    Route { name: "planned", limits: &["plan"] },
    Route { name: "both", limits: &["both-rate", "both-plan"] },
];

/// The workers of a process.
pub(super) struct Gateway {
    seat: Arc<Seat>,
    view: Mutex<Arc<View>>,
    handle: OnceLock<Handle>,
}

impl Gateway {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        Self { seat, view: Mutex::default(), handle: OnceLock::new() }
    }

    pub(super) fn begin(&self, handle: &Handle) {
        // Set once, before anybody works.
        let _: Result<(), _> = self.handle.set(handle.clone());
    }

    /// Takes Views for the workers: they have it a little later, and then it is enforced.
    pub(super) fn publish(self: &Arc<Self>) -> Publish {
        let gateway = Arc::clone(self);
        Arc::new(move |view| {
            let gateway = Arc::clone(&gateway);
            async move {
                gateway.seat.cluster.record.state(gateway.seat.id, &view);
                let early = gateway.seat.cluster.is(Mutation::EnforcedEarly);
                let late_us = gateway.seat.between(0, gateway.seat.cluster.publish_us);
                let late = Duration::from_micros(if early { late_us * 20 } else { late_us });
                let put = async move {
                    tokio::time::sleep(late).await;
                    let mut held = lock(&gateway.view);
                    if held.index < view.index {
                        *held = view;
                    }
                };
                if early {
                    tokio::spawn(put);
                } else {
                    put.await;
                }
            }
            .boxed()
        })
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&lock(&self.view))
    }

    /// Takes one request after the other.
    pub(super) async fn work(self: Arc<Self>) {
        let cluster = Arc::clone(&self.seat.cluster);
        loop {
            let idle_us = match cluster.phase() {
                Phase::Demand => 20_000,
                _ => self.seat.between(500, cluster.idle_us),
            };
            tokio::time::sleep(Duration::from_micros(idle_us)).await;
            match cluster.phase() {
                Phase::Work | Phase::Demand => self.request().await,
                Phase::Making | Phase::Recover | Phase::Quiet => {}
            }
        }
    }

    /// What a client chooses.
    fn choose(&self) -> Option<(usize, machine::key::KeyId, Route)> {
        let cluster = &self.seat.cluster;
        let keys = lock(&cluster.keys);
        let demand = cluster.phase() == Phase::Demand;
        let shown: Vec<_> =
            (0..keys.len()).filter(|at| !demand || keys.get(*at).is_some_and(|key| key.made && !key.ending)).collect();
        let key = *shown.get(usize::try_from(self.seat.between(0, shown.len().checked_sub(1)? as u64)).ok()?)?;
        let id = keys.get(key)?.id;
        drop(keys);
        let route = match cluster.phase() {
            Phase::Demand => ROUTES.get(1)?,
            _ => ROUTES.get(usize::try_from(self.seat.between(0, ROUTES.len() as u64 - 1)).ok()?)?,
        };
        Some((key, id, *route))
    }

    /// Sometimes a worker is away for a while, between any two steps.
    async fn stall(&self) {
        if self.seat.chance(4) {
            let away_us = self.seat.between(1_000, 2_500_000);
            tokio::time::sleep(Duration::from_micros(away_us)).await;
        }
    }

    async fn request(&self) {
        let (seat, cluster) = (&self.seat, &self.seat.cluster);
        let Some((key, id, route)) = self.choose() else { return };
        let Some(handle) = self.handle.get() else { return };
        let (number, started_us) = (cluster.number(), now_us());
        let answered = |status, problem: Option<&str>| {
            let outcome = RequestOutcome::Answered { status, problem: problem.map(Text::from) };
            let credential = Text::from(format!("k{key}#1"));
            let (request, node, route) = (number, seat.id, Text::from(route.name));
            cluster.record.event(What::Request(Request {
                request,
                node,
                credential,
                route,
                began_us: started_us,
                outcome,
            }));
        };
        let early = if cluster.is(Mutation::ViewBeforeLease) { Some(self.view()) } else { None };
        if early.is_some() && cluster.phase() == Phase::Work && seat.chance(500) {
            // Long enough for a lease to end and another to come.
            tokio::time::sleep(Duration::from_micros(seat.between(1_000, 2_500_000))).await;
        }
        self.stall().await;
        let local_us = seat.clock.boot_us();
        self.stall().await;
        if !handle.authority().is_valid(local_us) && !cluster.is(Mutation::LeaseIgnored) {
            cluster.record.note(|known| known.figures.isolated += 1);
            return answered(503, Some("isolated"));
        }
        self.stall().await;
        let view = early.unwrap_or_else(|| self.view());
        let registry = &view.registry;
        let good = registry.keys.get(&id).filter(|key| key.revoked_at().is_none());
        if !good.is_some_and(|key| registry.consumers.get(key.consumer()).is_some_and(|consumer| consumer.enabled)) {
            cluster.record.note(|known| known.figures.refused += 1);
            return answered(401, Some("unauthenticated"));
        }
        self.stall().await;
        let Some(parts) = self.parts(handle, &view, route) else {
            cluster.record.note(|known| known.figures.unavailable += 1);
            return answered(503, Some("limit-unavailable"));
        };
        let mut verdict = admit(&parts, local_us);
        if !matches!(verdict, Verdict::Admitted { .. }) && self.spend_remembered(route, &parts) {
            verdict = Verdict::Admitted { at_us: seat.clock.boot_us() };
        }
        if verdict == Verdict::Dry {
            verdict = handle.allowances().wait(&parts, WAIT).await;
        }
        match verdict {
            Verdict::Admitted { at_us } => {
                self.remember(route, &parts);
                let at = handle.time();
                cluster.record.event(What::Arrival(Arrival { request: number, consumer: Some(Text::from("acme")) }));
                cluster.record.event(What::Logged(Logged {
                    node: seat.id,
                    request: number,
                    allowed: true,
                    key_id: Some(Text::from(id.to_string())),
                    limit: None,
                    tick_us: at.tick.0,
                    wall_ms: at.wall.0,
                    decide_us: now_us() - started_us,
                }));
                let real_us = seat.clock.real_us(at_us);
                let (node, view, limits) = (seat.id, view.index, route.limits);
                cluster.record.note(|known| {
                    known.figures.admitted += 1;
                    known.admits.push(Admit { real_us, started_us, node, view, key, limits });
                });
                answered(200, None);
            }
            Verdict::Refused { .. } => {
                cluster.record.note(|known| known.figures.refused += 1);
                answered(429, Some("rate-limited"));
            }
            Verdict::Dry => {
                cluster.record.note(|known| known.figures.unavailable += 1);
                answered(503, Some("limit-unavailable"));
            }
        }
    }

    fn parts(&self, handle: &Handle, view: &View, route: Route) -> Option<Vec<(Arc<Slot>, u64)>> {
        let mut parts = Vec::new();
        for limit in route.limits {
            let name = Name::new(limit).ok()?;
            let burst = view.registry.limits.get(&name)?.rule.burst();
            let id = BucketId { limit: name, subject: b"all".as_slice().into() };
            parts.push((handle.allowances().slot(&id, burst)?, 1));
        }
        Some(parts)
    }

    /// Notes what was granted, if the bug is to use it again.
    fn remember(&self, route: Route, parts: &[(Arc<Slot>, u64)]) {
        if !self.seat.cluster.is(Mutation::AllowanceReusedAfterRestart) {
            return;
        }
        let mut remembered = lock(&self.seat.remembered);
        for ((slot, _), limit) in parts.iter().zip(route.limits) {
            for held in slot.held() {
                remembered.retain(|(_, allowance, ..)| *allowance != held.allowance);
                let granted = held.remaining.saturating_add(held.spent);
                remembered.push((limit, held.allowance, granted, held.deadline_us));
            }
        }
    }

    /// The bug: spends what a process before this one was granted.
    fn spend_remembered(&self, route: Route, parts: &[(Arc<Slot>, u64)]) -> bool {
        let ([limit], true) = (route.limits, self.seat.cluster.is(Mutation::AllowanceReusedAfterRestart)) else {
            return false;
        };
        let now_us = self.seat.clock.boot_us();
        let own: Vec<_> = parts.iter().flat_map(|(slot, _)| slot.held()).map(|held| held.allowance).collect();
        let mut remembered = lock(&self.seat.remembered);
        let left = remembered.iter_mut().find(|(of, allowance, left, until)| {
            of == limit && *left > 0 && *until > now_us && !own.contains(allowance)
        });
        left.is_some_and(|(_, _, left, _)| {
            *left -= 1;
            true
        })
    }
}
