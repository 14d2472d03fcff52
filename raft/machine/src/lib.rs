//! The replicated state of a Quorate cluster, and the rules by which it changes.
//!
//! Everything here is a plain value: [`State::apply`] takes the cluster's time and a [`Proposal`] and gives an
//! [`Outcome`]. It depends on nothing else, so every node that applies the same log holds the same state, in this
//! release and the next. There is deliberately no I/O, clock, randomness, logging, floating point or hash map in this
//! crate: ids, hashes of secrets and the time arrive inside the command.
//!
//! A failure that follows from the command (a name that is taken, a stale revision) is an [`Outcome`]. A failure of
//! one machine cannot happen here.

pub mod allowance;
mod apply;
pub mod audit;
pub mod authority;
pub mod bucket;
pub mod cap;
mod cluster;
pub mod command;
pub mod consumer;
pub mod invariant;
pub mod key;
pub mod limit;
pub mod member;
pub mod name;
pub mod operator;
pub mod outcome;
pub mod record;
pub mod registry;
pub mod request;
pub mod resource;
pub mod settings;
pub mod state;
mod text;
pub mod time;
pub mod token;
pub mod tree;
pub mod view;

pub use command::{Actor, Command, Entry, Proposal};
pub use name::Name;
pub use outcome::{Applied, Outcome, Refusal};
pub use record::{Record, RecordKey};
pub use registry::Registry;
pub use request::RequestId;
pub use state::{Effects, State};
pub use time::{At, Tick, Wall};
pub use view::View;

/// The newest behaviour of [`State::apply`] that this release knows. A cluster uses it once every member supports it
/// and an operator has raised the cluster's level.
pub const FEATURE_LEVEL_MAX: u32 = 1;
