//! The gateway node: the library behind the program `quorate`. The data plane takes requests and answers from an
//! immutable view of the replicated state; the control plane keeps that view up to date.

pub mod admin;
pub mod boot;
pub mod clock;
pub mod cluster_port;
pub mod command_line;
pub mod config;
pub mod credential;
pub mod dev;
pub mod directory;
pub mod enrol;
pub mod faults;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gateway;
mod gathered;
pub mod init;
pub mod inspect;
pub mod join;
pub mod listen;
pub mod logging;
pub mod ops;
pub mod pki;
pub mod renew;
pub mod resource;
