//! Steady traffic while something is broken on purpose.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Threads that repeat a request until they are told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What became of the requests.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many were answered as they should be.
    pub done: u64,
    /// What became of the others; the first thousand.
    pub failures: Vec<String>,
}

const FAILURES_MAX: usize = 1000;

impl Load {
    /// Starts as many threads, each repeating what `make` gave it.
    pub fn start<R>(threads: usize, make: impl Fn(usize) -> R) -> Self
    where
        R: FnMut() -> Result<(), String> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads)
            .map(|number| {
                let (shared, mut request) = (Arc::clone(&shared), make(number));
                std::thread::spawn(move || {
                    while !shared.stop.load(Ordering::Relaxed) {
                        match request() {
                            Ok(()) => {
                                shared.done.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(failure) => {
                                let mut failures = shared.failures.lock().expect("never poisoned");
                                if failures.len() < FAILURES_MAX {
                                    failures.push(failure);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// How many requests were answered as they should be so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until that many more were answered: traffic flows again, or still.
    pub fn wait_for_more(&self, count: u64) {
        let before = self.done();
        crate::eventually("traffic flows", || {
            let more = self.done() - before;
            if more >= count { Ok(()) } else { Err(format!("{more} of {count} more answers")) }
        });
    }

    /// Stops the threads.
    pub fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a request does not panic");
        }
        let failures = self.shared.failures.lock().expect("never poisoned").clone();
        Report { done: self.done(), failures }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
