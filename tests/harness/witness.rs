//! What three nodes let through, as the upstream saw it: each request once, by its id, with the time at which it began at the client
//! and the time at which it arrived. It was admitted somewhere in between.

use crate::{
    client::{Answer, Call, Client, Connection},
    upstream::{Reply, Upstream},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// An upstream that counts by request id, and the clients that it counts.
#[derive(Debug)]
pub struct Witness {
    upstream: Upstream,
    records: Arc<Mutex<Records>>,
    next: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Records {
    began: BTreeMap<u64, Instant>,
    arrived: BTreeMap<u64, Instant>,
}

/// Threads that ask until they are told to stop.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answers: Arc<Mutex<BTreeMap<u16, u64>>>,
    refused_in_a_row: Arc<Vec<AtomicU64>>,
}

/// A connection that is made again when it breaks.
struct Line {
    client: Client,
    connection: Option<Connection>,
}

/// Pauses of a client that has nothing to win.
const PAUSE: Duration = Duration::from_millis(2);

impl Witness {
    /// An upstream that nobody has asked anything.
    pub fn new() -> Self {
        let records: Arc<Mutex<Records>> = Arc::default();
        let log = Arc::clone(&records);
        let upstream = Upstream::with(move |seen| {
            let now = Instant::now();
            let id = seen.headers.get("x-request-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let id = id.expect("nodes keep the request ids of trusted clients");
            // The same request sent twice to the upstream was admitted once.
            log.lock().expect("never poisoned").arrived.entry(id).or_insert(now);
            Reply::default()
        });
        Self { upstream, records, next: Arc::new(AtomicU64::new(1)) }
    }

    /// As a resource file names it.
    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// How many different requests have arrived.
    pub fn admitted(&self) -> u64 {
        self.records.lock().expect("never poisoned").arrived.len() as u64
    }

    /// Forgets everything: the requests of the next limit are counted from none.
    pub fn forget(&self) {
        *self.records.lock().expect("never poisoned") = Records::default();
    }

    /// Sends one request, numbered.
    pub fn send(&self, client: &Client, call: Call) -> Answer {
        let mut line = Line { client: client.clone(), connection: None };
        line.ask(&self.records, &self.next, call).unwrap_or_else(|error| panic!("{error}"))
    }

    /// For each of these clients a thread that repeats the call.
    pub fn crowd(&self, clients: Vec<Client>, call: &Call) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let answers: Arc<Mutex<BTreeMap<u16, u64>>> = Arc::default();
        let refused_in_a_row: Arc<Vec<AtomicU64>> = Arc::new(clients.iter().map(|_| AtomicU64::new(0)).collect());
        let threads = clients.into_iter().enumerate().map(|(place, client)| {
            let (stop, answers, refused) = (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&refused_in_a_row));
            let (records, next, call) = (Arc::clone(&self.records), Arc::clone(&self.next), call.clone());
            let mut line = Line { client, connection: None };
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let status = line.ask(&records, &next, call.clone()).map_or(0, |answer| answer.status);
                    *answers.lock().expect("never poisoned").entry(status).or_default() += 1;
                    if status == 429 {
                        refused[place].fetch_add(1, Ordering::Relaxed);
                    } else {
                        refused[place].store(0, Ordering::Relaxed);
                    }
                    if status != 200 {
                        std::thread::sleep(PAUSE);
                    }
                }
            })
        });
        let threads = threads.collect();
        Crowd { stop, threads, answers, refused_in_a_row }
    }

    /// Panics if in any interval more requests were admitted than `burst + rate·length`. Only those count that surely were: they began
    /// and arrived within it.
    pub fn never_above(&self, burst: u64, rate: u64) {
        let records = self.records.lock().expect("never poisoned");
        let mut spans: Vec<(Instant, Instant)> = records
            .arrived
            .iter()
            .map(|(id, arrived)| (*records.began.get(id).expect("nobody else asks"), *arrived))
            .collect();
        spans.sort_by_key(|(began, _)| *began);
        let Some(first) = spans.first().map(|(began, _)| *began) else { return };
        // An interval that holds more than it may can be shrunk until it begins with a request: it is enough to look at these, and a
        // few hundred of them tell as much as all.
        let step = (spans.len() / 300).max(1);
        for begin in (0..spans.len()).step_by(step) {
            let from = spans[begin].0;
            let mut ends: Vec<Instant> = spans[begin..].iter().map(|(_, arrived)| *arrived).collect();
            ends.sort();
            for (count, end) in ends.iter().enumerate() {
                let count = count as u64 + 1;
                let length = end.duration_since(from);
                let most = burst as f64 + rate as f64 * length.as_secs_f64();
                assert!(
                    count as f64 <= most,
                    "{count} requests within {length:?} from {:?}: at most {most:.1} may be ({burst} + {rate}/s)",
                    from.duration_since(first)
                );
            }
        }
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    fn ask(&mut self, records: &Mutex<Records>, next: &AtomicU64, call: Call) -> Result<Answer, String> {
        let id = next.fetch_add(1, Ordering::Relaxed);
        if self.connection.is_none() {
            self.connection = Some(self.client.connect()?);
        }
        let connection = self.connection.as_mut().expect("made above");
        records.lock().expect("never poisoned").began.insert(id, Instant::now());
        let answer = connection.try_send(call.header("x-request-id", &id.to_string()));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }
}

impl Crowd {
    /// Waits until every client has been refused 429 that many times on end: there is nothing left on any node.
    pub fn wait_until_refused(&self, times: u64) {
        crate::eventually("every client is refused", || {
            let rows: Vec<u64> = self.refused_in_a_row.iter().map(|row| row.load(Ordering::Relaxed)).collect();
            if rows.iter().all(|row| *row >= times) {
                Ok(())
            } else {
                Err(format!("refused on end: {rows:?}; answers: {:?}", self.answers()))
            }
        });
    }

    /// How many answers there were so far, by status; 0 for none at all.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        self.answers.lock().expect("never poisoned").clone()
    }

    /// Stops the threads. Returns the answers.
    pub fn stop(mut self) -> BTreeMap<u16, u64> {
        self.end();
        self.answers()
    }

    /// The statuses there were, whatever their number.
    pub fn statuses(&self) -> BTreeSet<u16> {
        self.answers().into_keys().collect()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}
