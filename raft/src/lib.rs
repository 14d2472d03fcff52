//! Consensus: one replicated [`machine::State`] on all nodes, through Raft.
//!
//! What the rest of the gateway sees is [`start`] and the [`Handle`] that it returns: propose a command from any node,
//! read what was committed, watch the [`machine::View`], ask who the members are. openraft is spoken in `adapt` and
//! `types` alone; everything else here would survive another engine. HTTP, certificates and configuration are not
//! here: the caller supplies how to dial a peer, what the time is, and what to do with a new View.

mod adapt;
mod applied;
mod backup;
mod batch;
mod clock;
pub mod codec;
mod forward;
mod handle;
mod lead;
mod membership;
mod node;
mod peers;
mod publish;
mod session;
mod start;
mod status;
mod timing;
mod types;
mod upkeep;
mod vault;

pub use adapt::server::RaftService;
pub use clock::Clock;
pub use handle::{AuditPage, Backup, Fence, Handle, ProposeError, ReadError, Services, TransferError, Written};
pub use session::server::LeaderService;
pub use start::{Caller, Callers, Certificate, Dial, DialError, Folders, Publish, Start, StartError, start};
pub use status::{FenceState, LocalStatus, Observation, Observed, Role, Session};
pub use timing::{Profile, Timing, Upkeep};
