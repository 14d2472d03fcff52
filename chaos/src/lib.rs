//! Breaks Quorate on purpose and checks what it promised.
//!
//! [`sim`] drives the pure core alone, thousands of runs a minute, each repeatable from its seed. [`run`] breaks real processes; it
//! leaves a [`history`], which [`invariant`] judges; [`mutations`] proves that it can fail.

mod bugs;
pub mod history;
pub mod invariant;
pub mod mutations;
pub mod run;
pub mod sim;
pub mod soak;
