//! Consensus: one replicated [`machine::State`] on all nodes, through Raft.
//!
//! What the rest of the gateway sees is [`start()`] and the [`Handle`] that it returns: propose a command from any node,
//! read what was committed, watch the [`machine::View`], ask who the members are. openraft is spoken in `adapt` and
//! `types` alone; everything else here would survive another engine. HTTP, certificates and configuration are not
//! here: the caller supplies how to dial a peer, what the time is, and what to do with a new View.
//!
//! **The life of a write.** `forward` finds the leader and asks it, over the network or in place, and asks again when it
//! changes, always with the same request id. On the leader `batch` gathers what arrives together, stamps the cluster's
//! time on it (`session/tenure`) and appends it as one log entry. openraft replicates it (`adapt/network`,
//! `adapt/server`), every node syncs it (`adapt/log`) and applies it once a majority has (`adapt/machine`), and the
//! leader's answer goes back. On every node `publish` hands the new View to the workers, and when they all have it
//! `session/report` tells the leader, whose table (`session/table`) the fence of the write is waiting at (`lead`).
//!
//! **The life of a read.** The leader asks a majority whether it still leads (ReadIndex, never a lease of its own), and
//! the node that was asked waits until it has applied the log up to there.
//!
//! **What rests on disk.** The log and the vote are the truth. The applied state rests in a checkpoint, which may be
//! lost, and in snapshot files, behind which alone the log is cut (`vault`, `upkeep`). A node whose log is gone does not
//! start: it may have voted, and promised what it no longer knows.
//!
//! **Who is a member** is decided by commands in the replicated state; `membership` makes raft's own membership follow.
//!
//! **Time** is an argument everywhere: the clocks are the caller's ([`Clock`]), and what is shared of them is the
//! leader's tenure, which ends with its leadership.
//!
//! **The life of a token.** A worker spends what the node holds (`allowances`). `session/steward` asks for more before it
//! is gone, `session/report` carries it to the leader, where `batch` puts what all nodes ask into one entry, and apply
//! answers each of them.

mod adapt;
mod allowances;
mod applied;
mod backup;
mod batch;
mod clock;
pub mod codec;
mod digest;
mod disk;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ground;
mod handle;
mod inspect;
mod lead;
mod membership;
pub mod mutation;
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

pub use ::session::{
    lease::Authority,
    ledger::{Pace, Slot, Verdict, admit},
};
pub use adapt::server::RaftService;
pub use allowances::{AllowanceCaps, Allowances, Holds};
pub use clock::Clock;
pub use digest::Digest;
pub use ground::{DiskPause, Ground, Simulated};
pub use handle::{AuditPage, Backup, Fence, Handle, ProposeError, ReadError, Services, TransferError, Usage, Written};
pub use inspect::{InspectError, Inspected, InspectedMember, inspect};
pub use session::server::LeaderService;
pub use start::{Caller, Callers, Certificate, Dial, DialError, Folders, Publish, Start, StartError, start};
pub use status::{FenceState, LocalStatus, Observation, Observed, Role, Session};
pub use timing::{Profile, Timing, Upkeep};
