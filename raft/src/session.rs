//! The session of a node with the leader: one stream, on which reports and requests for allowances go up, and the
//! leader's advice and answers come down. Neither kind waits for the other.
//!
//! [`report`] is the node's side, [`server`] and [`tenure`] the leader's: a tenure is one leader's time, with the table of
//! members, the lease book and the clocks that belong to it and end with it. [`table`] and the clocks are plain values.
//! [`steward`] says what the node asks of the cluster's limits.

pub(crate) mod clock;
pub(crate) mod renewals;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod steward;
pub(crate) mod table;
pub(crate) mod tenure;
