//! openraft, and everything that speaks to it. What the rest of the crate sees is [`engine`], in this cluster's words.

pub(crate) mod append;
#[cfg(test)]
mod conformance;
pub(crate) mod engine;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod server;
