//! When requests of an open loop are due: every so many nanoseconds, by a timer of the kernel that is not rounded to milliseconds.

use super::Shared;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::{
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

/// Says so at this rate until it is held.
pub async fn tick(rate: u32, shared: Rc<Shared>) {
    let interval = Duration::from_secs(1) / rate;
    let timer =
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).expect("a timer");
    let every = Timespec { tv_sec: 0, tv_nsec: i64::from(interval.subsec_nanos()) };
    let began = Instant::now();
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })
        .expect("a time");
    // A timer is waited for and read just as a pipe is.
    let mut timer = Receiver::from_owned_fd_unchecked(timer).expect("a timer can be waited for");
    let (mut expired, mut sent) = ([0; 8], 0);
    loop {
        timer.read_exact(&mut expired).await.expect("a timer");
        if shared.counts.hold.load(Ordering::Relaxed) {
            return;
        }
        for _ in 0..u64::from_ne_bytes(expired) {
            shared.counts.offered.fetch_add(1, Ordering::Relaxed);
            sent += 1;
            let lane = &shared.lanes[sent as usize % shared.lanes.len()];
            lane.due.borrow_mut().push_back(began + interval * sent);
            lane.wake.notify_one();
        }
    }
}
