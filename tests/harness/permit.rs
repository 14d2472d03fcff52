//! How many clusters may live at once: three nodes each, on machines with two cores.

use std::sync::{Condvar, Mutex};

/// More would only make each of them slower.
const CLUSTERS_MAX: usize = 2;

static LIVING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// The right to run one cluster; given back when dropped.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// Waits until a cluster may start.
    pub fn take() -> Self {
        let living = LIVING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut living = LEFT.wait_while(living, |living| *living >= CLUSTERS_MAX).expect("never poisoned");
        *living += 1;
        Self(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *LIVING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}
