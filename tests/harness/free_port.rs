//! Ports for nodes that must keep theirs over restarts: below the range from which the kernel hands out ports by itself, so that no
//! client's connection sits on one while its node is down.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 10_240;
const COUNT: u16 = 21_760;

/// A port that nobody listens on, and that this process has not handed out before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that test at the same time begin far apart.
    let start = u16::try_from(u64::from(std::process::id()) * 7919 % u64::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", u32::from(FIRST) + u32::from(COUNT));
}
