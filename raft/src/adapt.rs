//! openraft's traits over our storage, state and wire.
pub(crate) mod server;
