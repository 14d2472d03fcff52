//! Clusters of several nodes in one process, over the real peer protocol on loopback.

mod bootstrap;
mod harness;
