//! What is asked of a gateway: the rows of the comparison. Which of them a peer has an answer for, and how, is in its own file.

use crate::load::{Pace, Protocol};

/// What a gateway does with each request, besides passing it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Nothing.
    Plain,
    /// TLS 1.3 towards the client.
    Tls,
    /// Knows the client by its API key, one of many.
    Keys,
    /// Counts each client's requests, by itself.
    LocalLimit,
    /// Counts each client's requests over all gateways.
    GlobalLimit,
    /// TLS, key, policy, global limit, access log; or what the peer has of these.
    Full,
}

/// A row: a stack and how it is loaded.
#[derive(Debug)]
pub struct Row {
    /// By what it is chosen.
    pub name: &'static str,
    /// For readers.
    pub title: &'static str,
    /// What the gateway does.
    pub stack: Stack,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// From how many clients requests come in turn; from nobody in particular where this is 0.
    pub callers: usize,
    /// How fast.
    pub pace: Pace,
}

/// Requests a second of the row that is about latency: far from what any of the peers can do.
const CALM: u32 = 2_000;

/// Clients with a key of their own.
pub const CLIENTS: usize = 10_000;
/// As many of them as a gateway hears from all the time: what it has been granted for them is always in use.
const BUSY: usize = 100;

/// All rows.
pub const ROWS: [Row; 11] = [
    row("plain", "Plain proxying, HTTP/1.1", Stack::Plain, Protocol::Plain, 0),
    row("tls", "TLS 1.3, HTTP/1.1", Stack::Tls, Protocol::Tls, 0),
    row("h2", "TLS 1.3, HTTP/2", Stack::Tls, Protocol::Http2, 0),
    row("keys", "API key, 10,000 callers", Stack::Keys, Protocol::Plain, CLIENTS),
    row("local", "Limit of each gateway by itself, 10,000 callers", Stack::LocalLimit, Protocol::Plain, CLIENTS),
    row("global", "Limit over all gateways, 10,000 callers", Stack::GlobalLimit, Protocol::Plain, CLIENTS),
    row("global-busy", "Limit over all gateways, 100 callers of 10,000", Stack::GlobalLimit, Protocol::Plain, BUSY),
    row(
        "full",
        "Full stack (TLS, key, policy, global limit, access log), 10,000 callers",
        Stack::Full,
        Protocol::Tls,
        CLIENTS,
    ),
    row("full-busy", "Full stack, 100 callers of 10,000", Stack::Full, Protocol::Tls, BUSY),
    row("full-busy-h2", "Full stack, 100 callers of 10,000, HTTP/2", Stack::Full, Protocol::Http2, BUSY),
    Row {
        pace: Pace::Open(CALM),
        ..row("latency", "Plain proxying at 2,000 requests a second", Stack::Plain, Protocol::Plain, 0)
    },
];

const fn row(name: &'static str, title: &'static str, stack: Stack, protocol: Protocol, callers: usize) -> Row {
    Row { name, title, stack, protocol, callers, pace: Pace::Closed }
}

impl Stack {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Plain, Self::Tls, Self::Keys, Self::LocalLimit, Self::GlobalLimit, Self::Full];

    /// Whether clients connect with TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Full)
    }

    /// Whether each request comes from another one of many clients.
    pub fn has_clients(self) -> bool {
        matches!(self, Self::Keys | Self::LocalLimit | Self::GlobalLimit | Self::Full)
    }

    /// Whether a client that is not known must be refused.
    pub fn checks_keys(self) -> bool {
        matches!(self, Self::Keys | Self::Full)
    }
}
