//! What limits cost and lose under a steady load: figures, where the rest of the simulation knows only right and wrong.

use super::{
    scenario::{Scenario, Steady},
    world::{SECOND_US, World},
};

/// What was measured over some seconds of a steady load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Requests made.
    pub requests: u64,
    /// Requests admitted.
    pub admitted: u64,
    /// Requests that waited in vain for an allowance.
    pub unavailable: u64,
    /// Log entries.
    pub entries: u64,
    /// Requests of nodes for allowances, with what they report.
    pub asked: u64,
    /// Tokens that one node held and had not spent, at the most.
    pub held_max: u64,
    /// Tokens that a node held when it crashed.
    pub stranded: u64,
    /// Over how many seconds.
    pub seconds: u64,
}

/// From here to there a run is measured.
const MEASURED: (u64, u64) = (4 * SECOND_US, 14 * SECOND_US);

/// Runs a steady load of three nodes.
///
/// # Errors
/// What does not hold, in words.
pub fn steady(seed: u64, load: Steady) -> Result<Figures, String> {
    let mut world = World::new(Scenario::Steady(load), seed, None);
    world.run_until(MEASURED.0);
    let before = world.count();
    let (mut held_max, mut stranded) = (0, None);
    let mut now_us = MEASURED.0;
    while now_us < MEASURED.1 {
        now_us += SECOND_US / 200;
        world.run_until(now_us);
        held_max = held_max.max(world.held_most());
        if load.crashes && stranded.is_none() && now_us >= MEASURED.0 + SECOND_US {
            stranded = Some(world.crash_a_follower());
        }
    }
    let after = world.count();
    world.verdict()?;
    Ok(Figures {
        requests: after.requests - before.requests,
        admitted: after.admitted - before.admitted,
        unavailable: after.unavailable - before.unavailable,
        entries: after.entries - before.entries,
        asked: after.asked - before.asked,
        held_max,
        stranded: stranded.unwrap_or(0),
        seconds: (MEASURED.1 - MEASURED.0) / SECOND_US,
    })
}
