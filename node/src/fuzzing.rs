//! Doors for fuzzing: what strangers and operators send, taken through what reads it here. Only built with the feature
//! `fuzzing`; the targets, and what they check of what comes out, are in `chaos/fuzz`.

pub use crate::admin::fuzzing::{ADMIN_VERBS, admin_command};
