//! Breaks Quorate on purpose and checks what it promised.
//!
//! [`sim`] drives the pure core alone, thousands of runs a minute, each repeatable from its seed.

pub mod sim;
