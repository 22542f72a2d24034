//! A proxy in front of Docker's socket: it logs every request, and lets accidents happen to those
//! that a rule picks.
//!
//! Every connection carries one request: Docker is told to close it behind its answer, and clients
//! take that for what it is. So the end of an answer needs no understanding, and bytes of streams
//! (events, logs, pulls, what was upgraded for exec) go through as they come.

mod exchange;
mod http;
mod request;

pub use request::*;

use std::{
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{pick::Scratch, within};

/// Where the proxy passes requests on to, unless it is told otherwise.
const DOCKER: &str = "/var/run/docker.sock";

/// How soon those who wait see that the proxy is over.
const TICK: Duration = Duration::from_millis(50);

type Rule = dyn Fn(&Request) -> Fate + Send + Sync;

/// A running proxy; it ends when dropped, and with it every connection through it.
pub struct Proxy {
    scratch: Scratch,
    shared: Arc<Shared>,
}

/// What the proxy and its connections know.
struct Shared {
    upstream: PathBuf,
    log: Mutex<Log>,
    rule: RwLock<Arc<Rule>>,
    open: Mutex<Vec<Open>>,
    next: AtomicUsize,
    over: AtomicBool,
}

/// Every request so far, and how many there were when the rule in force came.
#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    before: usize,
}

/// A connection that is open.
struct Open {
    id: usize,
    request: Request,
    client: UnixStream,
    frozen: Arc<AtomicBool>,
}

impl Proxy {
    /// One that passes everything on.
    pub fn new() -> Self {
        Self::with_rule(|_| Fate::Pass)
    }

    /// One that asks `rule` what to do with each request. A rule may take its time.
    pub fn with_rule(rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        Self::before(DOCKER, rule)
    }

    /// The same in front of the Docker that listens at the socket `upstream`, which need not be
    /// there yet.
    pub fn before(upstream: &str, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path("docker.sock")).expect("a new socket");
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            log: Mutex::default(),
            rule: RwLock::new(Arc::new(rule)),
            open: Mutex::default(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let known = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if known.is_over() {
                    return;
                }
                let shared = known.clone();
                // A connection that breaks is the client's to report.
                thread::spawn(move || exchange::serve(&shared, client));
            }
        });
        Self { scratch, shared }
    }

    /// For DOCKER_HOST.
    pub fn url(&self) -> String {
        format!("unix://{}", self.scratch.path("docker.sock"))
    }

    /// From now on `rule` says what to do, and counts anew: the next request is its first.
    pub fn set_rule(&self, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) {
        let mut log = self.shared.log();
        *self.shared.rule.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rule);
        log.before = log.requests.len();
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log().requests.clone()
    }

    /// The requests since the rule in force came.
    pub fn requests_of_rule(&self) -> Vec<Request> {
        let log = self.shared.log();
        log.requests[log.before..].to_vec()
    }

    /// The requests so far that asked for a change.
    pub fn changes(&self) -> Vec<String> {
        self.requests().iter().filter(|r| r.changes()).map(ToString::to_string).collect()
    }

    /// Waits for a request that fits, since the rule in force came.
    #[track_caller]
    pub fn hears(&self, patience: Duration, what: &str, fits: impl Fn(&Request) -> bool) -> Request {
        within(patience, what, || {
            let all = self.requests_of_rule();
            let last = all.iter().rev().take(5).map(ToString::to_string).collect::<Vec<_>>();
            all.into_iter().find(&fits).ok_or_else(|| format!("{last:?}"))
        })
    }

    /// Ends the open connections whose request fits, and returns how many there were.
    pub fn drop_streams(&self, fits: impl Fn(&Request) -> bool) -> usize {
        let open = self.shared.open();
        let dropped: Vec<&Open> = open.iter().filter(|open| fits(&open.request)).collect();
        for open in &dropped {
            // One that has ended by itself is dropped, too.
            let _ = open.client.shutdown(Shutdown::Both);
        }
        dropped.len()
    }

    /// From now on no byte comes through the open connections whose request fits, and nobody is
    /// told: as if the machine behind them had lost its power. Returns how many there were.
    pub fn freeze_streams(&self, fits: impl Fn(&Request) -> bool) -> usize {
        let open = self.shared.open();
        let frozen: Vec<&Open> = open.iter().filter(|open| fits(&open.request)).collect();
        frozen.iter().for_each(|open| open.frozen.store(true, Ordering::SeqCst));
        frozen.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.drop_streams(|_| true);
        // Wakes the listener, which then sees that it is over.
        let _ = UnixStream::connect(self.scratch.path("docker.sock"));
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Gives a request its numbers and logs it. Returns the rule that these are numbers of.
    fn note(&self, mut request: Request) -> (Request, Arc<Rule>) {
        let mut log = self.log();
        let of_rule = &log.requests[log.before..];
        request.number = of_rule.len() + 1;
        let changes = of_rule.iter().filter(|known| known.changes()).count();
        request.change = request.changes().then_some(changes + 1);
        let rule = self.rule.read().unwrap_or_else(PoisonError::into_inner).clone();
        log.requests.push(request.clone());
        (request, rule)
    }

    /// Waits until it is so; whether the proxy is still wanted then.
    fn wait_until(&self, so: impl Fn() -> bool) -> bool {
        while !self.is_over() && !so() {
            thread::sleep(TICK);
        }
        !self.is_over()
    }
}
