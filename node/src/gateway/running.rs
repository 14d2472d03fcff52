//! The running data plane: its threads and listeners, the views that it is given, and its end.

use super::{
    Clock, STACK_BYTES, Settings, StartError, Worker,
    draining::{Draining, Stage},
    limit::NodeLimits,
    overload::{self, Overload},
    record::LogWriter,
    upkeep,
    worker::{Look, Published, Shared, lock},
};
use crate::{
    listen::{
        self, Addresses, CertificateError, Certificates, Expiry, Listener, connection::Connection, door::Crowd,
        tls::Tls,
    },
    resource::compile::Compiled,
};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::HeaderValue;
use machine::{View, member::NodeId};
use metrics::gauge;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::{Notify, mpsc, oneshot};

/// Looks that wait for one worker. Views are published one after the other, so there is one.
const LOOKS_MAX: usize = 4;

/// How long a connection without a request in flight may still bring one after the listeners have closed, if its client
/// could not be told before: longer than a TLS handshake takes around the world.
const LAST_CALL: Duration = Duration::from_secs(2);

/// The running data plane. Clones are the same one; when the last is dropped, it stops.
#[derive(Clone)]
pub struct Handle(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    addresses: Addresses,
    tls: Option<Arc<ArcSwap<Tls>>>,
    workers: Vec<Arc<Worker>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: LogWriter,
    /// Views are published one after the other.
    turn: tokio::sync::Mutex<()>,
}

/// What the data plane says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The log index that every worker enforces.
    pub enforced: u64,
    /// The cluster revision at that index.
    pub revision: u64,
    /// Open client connections.
    pub connections: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Routes that are served.
    pub routes: usize,
    /// Documents that this release cannot read, and why; the routes that need them are refused.
    pub unreadable: Vec<String>,
    /// Whether some route is served without authority too.
    pub serves_isolated: bool,
}

/// Binds the listeners and starts the workers, which enforce `first` from their first request on. The recorder of
/// metrics must be installed before: handles are made once and kept.
///
/// # Errors
/// [`StartError`] says what could not be had; nothing is left running.
pub fn start(settings: Settings, node: NodeId, clock: Arc<dyn Clock>, first: Arc<View>) -> Result<Handle, StartError> {
    let count = settings.workers.max(1);
    let tls = match &settings.tls {
        Some((_, certificates)) => Some(Arc::new(ArcSwap::from_pointee(Tls::new(certificates, None)?))),
        None => None,
    };
    let mut addresses = Addresses::default();
    let mut listeners: Vec<Vec<Listener>> = Vec::new();
    listeners.resize_with(count, Vec::new);
    for (address, tls) in [(settings.plain, None), (settings.tls.as_ref().map(|(address, _)| *address), tls.clone())] {
        let Some(address) = address else { continue };
        let (bound, opened) = listen::open(address, count)?;
        if tls.is_some() {
            addresses.tls = Some(bound)
        } else {
            addresses.plain = Some(bound)
        }
        for (of_worker, socket) in listeners.iter_mut().zip(opened) {
            of_worker.push(Listener { socket, tls: tls.clone() });
        }
    }
    let (log, buffers) = LogWriter::start(&settings.access_log, count)?;
    let compiled = Arc::new(Compiled::new(&first.registry, &Compiled::default()));
    note(&compiled);
    let limits = Arc::new(NodeLimits::of(&compiled.limits, &NodeLimits::default()));
    let shared = Arc::new(Shared {
        node,
        node_header: HeaderValue::from(node),
        clock,
        published: ArcSwap::from_pointee(Published { view: first, compiled, limits }),
        crowd: Crowd::default(),
        overload: Overload::default(),
        in_flight: AtomicUsize::new(0),
        draining: Draining::default(),
        stopped: AtomicBool::new(false),
        stop: Notify::new(),
        settings,
    });
    let mut running = Running {
        shared: Arc::clone(&shared),
        addresses,
        tls,
        workers: Vec::new(),
        threads: Mutex::default(),
        log,
        turn: tokio::sync::Mutex::default(),
    };
    for (index, (buffer, listeners)) in buffers.into_iter().zip(listeners).enumerate() {
        let (looks, asked) = mpsc::channel(LOOKS_MAX);
        let worker = Arc::new(Worker::new(index, Arc::clone(&shared), buffer, looks));
        let thread = run(Arc::clone(&worker), listeners, asked).map_err(StartError::Worker)?;
        running.workers.push(worker);
        lock(&running.threads).push(thread);
    }
    Ok(Handle(Arc::new(running)))
}

/// Runs one worker on a thread of its own.
fn run(worker: Arc<Worker>, listeners: Vec<Listener>, asked: mpsc::Receiver<Look>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name(format!("worker-{}", worker.index)).stack_size(STACK_BYTES);
    thread.spawn(move || {
        runtime.block_on(async {
            tokio::spawn(Arc::clone(&worker.deadlines).look());
            tokio::spawn(overload::probe(Arc::clone(&worker)));
            tokio::spawn(upkeep::run(Arc::clone(&worker), asked));
            for listener in listeners {
                worker.shared.draining.listener_opened();
                tokio::spawn(listen::accept(Arc::clone(&worker), listener));
            }
            worker.stopped().await;
        });
        // Ends what is still in flight; each is recorded as it goes.
        drop(runtime);
    })
}

impl Handle {
    /// Makes a view the one that decides. When the future resolves, every request that begins from then on is decided by
    /// it (or a later one), on every worker. Must be called in the order of the views.
    pub fn publish(&self, view: Arc<View>) -> BoxFuture<'static, ()> {
        let running = Arc::clone(&self.0);
        Box::pin(async move {
            let _turn = running.turn.lock().await;
            let before = running.shared.published.load_full();
            if view.index < before.view.index {
                return;
            }
            let (compiled, limits) = if view.registry.resources_revision == before.compiled.revision {
                (Arc::clone(&before.compiled), Arc::clone(&before.limits))
            } else {
                let compiled = compile(Arc::clone(&view), Arc::clone(&before.compiled)).await;
                let limits = NodeLimits::of(&compiled.limits, &before.limits);
                (compiled, Arc::new(limits))
            };
            let (registry, of_before) = (&view.registry, &before.view.registry);
            let may_end = !registry.keys.ptr_eq(&of_before.keys) || !registry.consumers.ptr_eq(&of_before.consumers);
            // A request loads this after it has begun, so whoever begins after the store sees it: there is nobody to wait
            // for but those who have begun, and whose credential holds no more.
            running.shared.published.store(Arc::new(Published { view, compiled, limits }));
            if may_end {
                running.cut().await;
            }
        })
    }

    /// Where the listeners are, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.0.addresses
    }

    /// Asks clients to look elsewhere while everything is still served, new connections too. Resolves after the delay.
    pub fn leave(&self, delay: Duration) -> BoxFuture<'static, ()> {
        let running = Arc::clone(&self.0);
        Box::pin(async move {
            running.shared.draining.reach(Stage::Leaving);
            tokio::time::sleep(delay / 2).await;
            running.shared.draining.reach(Stage::Parting);
            tokio::time::sleep(delay / 2).await;
        })
    }

    /// Takes no new connections, lets requests in flight finish for at most this long, then ends what is left. It cannot
    /// be started again. Without [`Handle::leave`] before it, connections that are idle end unannounced.
    pub fn drain(&self, at_most: Duration) -> BoxFuture<'static, ()> {
        let running = Arc::clone(&self.0);
        Box::pin(async move {
            let shared = &running.shared;
            let announced = shared.draining.stage() > Stage::Serving;
            shared.draining.close(if announced { LAST_CALL.min(at_most / 2) } else { Duration::ZERO });
            running.each_connection(Connection::wake);
            let emptied = shared.draining.emptied(&shared.crowd);
            if tokio::time::timeout(at_most, emptied).await.is_err() {
                running.each_connection(Connection::end);
            }
            // Threads are waited for off the runtime: they may belong to the one that polls this.
            let _ = tokio::task::spawn_blocking(move || running.stop()).await;
        })
    }

    /// Shows other certificates from the next handshake on.
    ///
    /// # Errors
    /// If they cannot be used; the ones before stay.
    pub fn reload_certificates(&self, certificates: Certificates) -> Result<(), CertificateError> {
        if let Some(tls) = &self.0.tls {
            let before = tls.load_full();
            tls.store(Arc::new(Tls::new(&certificates, Some(&before))?));
        }
        Ok(())
    }

    /// When the certificates that it shows end.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.tls.as_ref().map(|tls| tls.load().expiries()).unwrap_or_default()
    }

    /// Opens the access log's file anew: after it has been rotated away.
    pub fn reopen_access_log(&self) {
        self.0.log.reopen();
    }

    /// What it says of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.0.shared;
        let published = shared.published.load();
        Status {
            enforced: published.view.index,
            revision: published.view.registry.revision,
            connections: shared.crowd.connections(),
            in_flight: shared.in_flight.load(Ordering::Relaxed),
            routes: published.compiled.routes.len(),
            unreadable: published.compiled.unreadable.clone(),
            serves_isolated: published.compiled.routes.iter().any(|route| route.serves_isolated),
        }
    }
}

impl Running {
    /// Has every worker look through what it has in flight, and waits until nothing is left whose credential holds no
    /// more. A worker that has ended has nothing in flight.
    async fn cut(&self) {
        let mut looks = Vec::new();
        for worker in &self.workers {
            let (done, look) = oneshot::channel();
            if worker.looks.send(done).await.is_ok() {
                looks.push(look);
            }
        }
        for look in looks {
            let _ = look.await;
        }
    }

    fn each_connection(&self, act: impl Fn(&Connection)) {
        for worker in &self.workers {
            let connections: Vec<Arc<Connection>> = lock(&worker.connections).values().cloned().collect();
            connections.iter().for_each(|connection| act(connection));
        }
    }

    /// Ends the threads. Blocks until they are gone and the log is written.
    fn stop(&self) {
        self.signal_stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            let _ = thread.join();
        }
        self.log.stop();
    }

    fn signal_stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.stop.notify_waiters();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal_stop();
    }
}

async fn compile(view: Arc<View>, before: Arc<Compiled>) -> Arc<Compiled> {
    let compiling = tokio::task::spawn_blocking(move || Compiled::new(&view.registry, &before));
    let compiled = compiling.await.unwrap_or_else(|error| {
        // Nothing is served rather than what is no longer in force.
        tracing::error!(%error, "the resources could not be compiled: no route is served");
        Compiled::default()
    });
    note(&compiled);
    Arc::new(compiled)
}

/// Says what cannot be read, in the log and the metrics.
fn note(compiled: &Compiled) {
    for unreadable in &compiled.unreadable {
        tracing::error!(document = %unreadable, "this release cannot read a document: the routes that need it are refused");
    }
    gauge!("quorate_resources_unreadable").set(u32::try_from(compiled.unreadable.len()).unwrap_or(u32::MAX));
    gauge!("quorate_routes").set(u32::try_from(compiled.routes.len()).unwrap_or(u32::MAX));
}
