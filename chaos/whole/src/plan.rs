//! What a seed means: how many nodes, how the network and the disks are, and which faults come when.

use super::{Mutation, record::Figures};
use chaos::sim::random::Random;
use machine::member::Standing;
use storage::fs::Loss;

/// The shortest time of work and faults.
const WORK_MS_MIN: u64 = 4_000;
/// The longest.
const WORK_MS_MAX: u64 = 14_000;

/// The most a clock may be wrong by, in parts of a million: two of them together by what the product allows for.
const PPM_MAX: u64 = 4_500;

/// A link or a disk that is meant to be slow is at least so slow.
const SLOW_MS: u64 = 61;
const SLOW_DISK_US: u64 = 50_000;

/// How wrong the clock of [`Mutation::SlowClock`] is: half the speed.
const FAR_TOO_SLOW_PPM: i64 = -500_000;

/// What happens in a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) founders: u64,
    /// Nodes that may join later.
    pub(super) spares: u64,
    pub(super) voters: u8,
    pub(super) latency_ms: u64,
    pub(super) disk_us: u64,
    pub(super) publish_us: u64,
    pub(super) idle_us: u64,
    /// A cut holds messages back, as TCP does that sends again, or loses them.
    pub(super) holds: bool,
    pub(super) random_order: bool,
    /// Of each node: parts of a million, and milliseconds.
    pub(super) clocks: Vec<(i64, i64)>,
    pub(super) work_ms: u64,
    /// When, since the work began, in order.
    pub(super) actions: Vec<(u64, Action)>,
}

/// What is done to the cluster. Nodes are counted from 0.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Cuts what leads from one to the other.
    Cut(Vec<(usize, usize)>),
    /// Only one way.
    CutOneWay(Vec<(usize, usize)>),
    /// Joins it again.
    Join(Vec<(usize, usize)>),
    /// Messages take up to so long between these.
    Latency(Vec<(usize, usize)>, u64),
    /// Kills the process.
    Kill(usize),
    /// Lets the disk die after so many more operations.
    DiskDies(usize, u64),
    /// Cuts the power.
    Power(usize, Loss),
    /// Starts it again, if it is down.
    Start(usize),
    /// Stops it cleanly.
    Stop(usize),
    /// Its disk takes up to so many microseconds.
    Disk(usize, u64),
    /// A sync fails after so many more operations.
    SyncFails(usize, u64),
    /// Its clock is wrong by so much from now on.
    Rate(usize, i64),
    /// Its date is.
    Date(usize, i64),
    /// Leadership goes to this one.
    Transfer(usize),
    /// What is wanted of a member.
    Stand(usize, Standing),
    /// A new node joins.
    Admit(usize, bool),
    /// Its disk as it is now is what comes back later: for a bug.
    Image(usize),
}

impl Action {
    /// Where it is counted, if it begins a fault.
    pub(super) fn counted(&self) -> Option<fn(&mut Figures) -> &mut u64> {
        Some(match self {
            Self::Cut(_) => |figures| &mut figures.cuts,
            Self::CutOneWay(_) => |figures| &mut figures.one_way_cuts,
            Self::Latency(_, most_ms) if *most_ms >= SLOW_MS => |figures| &mut figures.slow_links,
            Self::Kill(_) => |figures| &mut figures.kills,
            Self::Power(..) => |figures| &mut figures.power_cuts,
            Self::DiskDies(..) => |figures| &mut figures.dying_disks,
            Self::SyncFails(..) => |figures| &mut figures.failing_syncs,
            Self::Disk(_, slowest_us) if *slowest_us >= SLOW_DISK_US => |figures| &mut figures.slow_disks,
            Self::Rate(..) => |figures| &mut figures.wrong_rates,
            Self::Date(_, error_ms) if *error_ms != 0 => |figures| &mut figures.wrong_dates,
            Self::Transfer(_) => |figures| &mut figures.transfers,
            Self::Stand(..) => |figures| &mut figures.standings,
            Self::Admit(..) => |figures| &mut figures.joins,
            Self::Stop(_) => |figures| &mut figures.stops,
            Self::Join(_) | Self::Start(_) | Self::Image(_) | Self::Latency(..) | Self::Disk(..) | Self::Date(..) => {
                return None;
            }
        })
    }
}

impl Plan {
    /// What this seed means.
    pub(super) fn of(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut random = Random::new(seed);
        let founders = *random.pick(&[3, 3, 4, 5]).unwrap_or(&3);
        let spares = random.between(0, 1);
        let ppm_max = random.between(0, PPM_MAX);
        let clocks = (0..founders + spares).map(|_| (signed(&mut random, ppm_max), signed(&mut random, 200))).collect();
        let latency_ms = *random.pick(&[2, 5, 20, 60]).unwrap_or(&5);
        let mut plan = Self {
            founders,
            spares,
            voters: if founders == 5 { 5 } else { 3 },
            latency_ms,
            disk_us: *random.pick(&[500, 2_000, 2_000, 20_000]).unwrap_or(&2_000),
            publish_us: *random.pick(&[100, 5_000, 30_000]).unwrap_or(&5_000),
            idle_us: *random.pick(&[40_000, 80_000]).unwrap_or(&60_000),
            holds: random.chance(500),
            random_order: random.chance(500),
            clocks,
            work_ms: random.between(WORK_MS_MIN, WORK_MS_MAX),
            actions: Vec::new(),
        };
        plan.schedule(&mut random, ppm_max, mutation);
        plan.adversary(&mut random, mutation);
        plan.actions.sort_by_key(|(at_ms, _)| *at_ms);
        plan
    }

    /// For bugs that show only in a node that is cut off for longer than its lease: at least one is.
    fn adversary(&mut self, random: &mut Random, mutation: Option<Mutation>) {
        if !matches!(mutation, Some(Mutation::SlowClock | Mutation::ViewBeforeLease)) {
            return;
        }
        let nodes = usize::try_from(self.founders + self.spares).unwrap_or(3);
        let node = usize::try_from(random.between(0, self.founders - 1)).unwrap_or(0);
        let pairs: Vec<_> = (0..nodes).filter(|other| *other != node).map(|other| (node, other)).collect();
        let at_ms = random.between(500, 2_000);
        if mutation == Some(Mutation::SlowClock) {
            self.at(at_ms, Action::Rate(node, FAR_TOO_SLOW_PPM));
        }
        self.at(at_ms, Action::Cut(pairs.clone()));
        self.at(at_ms + 5_000, Action::Join(pairs));
        self.work_ms = self.work_ms.max(at_ms + 8_000);
    }

    fn schedule(&mut self, random: &mut Random, ppm_max: u64, mutation: Option<Mutation>) {
        let nodes = usize::try_from(self.founders).unwrap_or(3);
        // Some runs are calm, some are not.
        let pause_ms = *random.pick(&[300, 800, 2_000]).unwrap_or(&800);
        let mut at_ms = random.between(0, pause_ms);
        let mut spare = nodes;
        while at_ms < self.work_ms {
            let node = usize::try_from(random.between(0, self.founders + self.spares - 1)).unwrap_or(0);
            let for_ms = *random.pick(&[200, 700, 2_500, 5_000]).unwrap_or(&700);
            let until_ms = at_ms + random.between(for_ms / 2, for_ms);
            match random.between(0, 99) {
                0..20 => self.kill_or_cut_power(random, node, at_ms, until_ms, mutation),
                20..25 => {
                    for node in 0..nodes {
                        let later_ms = random.between(0, 30);
                        self.kill_or_cut_power(random, node, at_ms + later_ms, until_ms, mutation);
                    }
                }
                25..50 => self.cut(random, node, at_ms, until_ms),
                50..58 => {
                    let pairs = self.links(random, node);
                    let slow_ms = random.between(SLOW_MS, 400);
                    self.at(at_ms, Action::Latency(pairs.clone(), slow_ms));
                    self.at(until_ms, Action::Latency(pairs, self.latency_ms));
                }
                58..65 => {
                    self.at(at_ms, Action::Disk(node, random.between(SLOW_DISK_US, 800_000)));
                    self.at(until_ms, Action::Disk(node, self.disk_us));
                }
                65..68 => {
                    self.at(at_ms, Action::SyncFails(node, random.between(0, 20)));
                    self.at(until_ms, Action::Start(node));
                }
                68..74 => self.at(at_ms, Action::Rate(node, signed(random, ppm_max))),
                74..78 => {
                    self.at(at_ms, Action::Date(node, signed(random, 3_600_000)));
                    self.at(until_ms, Action::Date(node, 0));
                }
                78..88 => self.at(at_ms, Action::Transfer(node)),
                88..92 => {
                    self.at(at_ms, Action::Stop(node));
                    self.at(until_ms, Action::Start(node));
                }
                92..96 => {
                    self.at(at_ms, Action::Stand(node, Standing::Learner));
                    self.at(until_ms, Action::Stand(node, Standing::Eligible));
                }
                _ => {
                    if spare < nodes + usize::try_from(self.spares).unwrap_or(0) {
                        self.at(at_ms, Action::Admit(spare, random.chance(300)));
                        spare += 1;
                    } else if self.founders > 3 && node >= 3 && node < nodes {
                        self.at(at_ms, Action::Stand(node, Standing::Leaving));
                    }
                }
            }
            at_ms += random.between(pause_ms / 4, pause_ms * 2);
        }
    }

    fn at(&mut self, at_ms: u64, action: Action) {
        self.actions.push((at_ms, action));
    }

    fn kill_or_cut_power(
        &mut self,
        random: &mut Random,
        node: usize,
        at_ms: u64,
        until_ms: u64,
        mutation: Option<Mutation>,
    ) {
        if mutation == Some(Mutation::OldDisk) {
            self.at(at_ms.saturating_sub(2_000), Action::Image(node));
        }
        match random.between(0, 2) {
            0 => self.at(at_ms, Action::Kill(node)),
            _ => {
                let dies_ms = at_ms.saturating_sub(random.between(0, 30));
                if random.chance(700) {
                    self.at(dies_ms, Action::DiskDies(node, random.between(0, 12)));
                }
                let loss = *random.pick(&[Loss::All, Loss::Some(at_ms), Loss::Nothing]).unwrap_or(&Loss::All);
                self.at(at_ms, Action::Power(node, loss));
            }
        }
        self.at(until_ms, Action::Start(node));
    }

    fn cut(&mut self, random: &mut Random, node: usize, at_ms: u64, until_ms: u64) {
        let pairs = self.links(random, node);
        let cut = if !self.holds && random.chance(300) { Action::CutOneWay } else { Action::Cut };
        self.at(at_ms, cut(pairs.clone()));
        self.at(until_ms, Action::Join(pairs));
    }

    /// All links of a node, or those between two halves, or one.
    fn links(&self, random: &mut Random, node: usize) -> Vec<(usize, usize)> {
        let nodes = usize::try_from(self.founders + self.spares).unwrap_or(3);
        let others = (0..nodes).filter(|other| *other != node);
        match random.between(0, 9) {
            0..6 => others.map(|other| (node, other)).collect(),
            6..8 => {
                let half: Vec<bool> = (0..nodes).map(|_| random.chance(500)).collect();
                let side = |node: usize| half.get(node).copied().unwrap_or(false);
                let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
                pairs.filter(|(a, b)| a != b && side(*a) && !side(*b)).collect()
            }
            _ => {
                let others: Vec<_> = others.collect();
                random.pick(&others).map(|other| (node, *other)).into_iter().collect()
            }
        }
    }
}

fn signed(random: &mut Random, most: u64) -> i64 {
    let size = i64::try_from(random.between(0, most)).unwrap_or(0);
    if random.chance(500) { size } else { -size }
}
