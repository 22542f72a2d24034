//! Requests, and what becomes of them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::within;

/// The words of paths; everything else in them names an object.
const WORDS: [&str; 21] = [
    "_ping",
    "archive",
    "connect",
    "containers",
    "create",
    "disconnect",
    "events",
    "exec",
    "get",
    "images",
    "info",
    "json",
    "load",
    "logs",
    "networks",
    "start",
    "stop",
    "system",
    "version",
    "volumes",
    "wait",
];

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query, without the API version.
    pub path: String,
    /// When it came.
    pub at: Instant,
    /// Which it is of all since the rule in force came, from 1.
    pub number: usize,
    /// Which it is of those that ask for a change.
    pub change: Option<usize>,
}

impl Request {
    pub(super) fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), at: Instant::now(), number: 0, change: None }
    }

    /// Whether it asks Docker to change something. Waiting for a container's end does not.
    pub fn changes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD") && !self.bare_path().ends_with("/wait")
    }

    /// Whether it is `method` on a path that starts with `path`.
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.starts_with(path)
    }

    /// The path without the query.
    pub fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether its answer is a stream with no end of its own.
    pub fn is_events(&self) -> bool {
        self.is("GET", "/events")
    }

    /// Whether it keeps up the stream of events: asks for it, or whether Docker is still there.
    pub fn is_listening(&self) -> bool {
        self.is_events() || self.is("GET", "/_ping")
    }

    /// The kind of call it is, with stars for ids and names.
    pub fn kind(&self) -> String {
        let words = self.bare_path().split('/').skip(1);
        let mut words: Vec<&str> = words.map(|word| if WORDS.contains(&word) { word } else { "*" }).collect();
        words.dedup();
        format!("{} /{}", self.method, words.join("/"))
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What holds a request back. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    open: Arc<AtomicBool>,
    answer: Arc<Mutex<Option<String>>>,
}

impl Gate {
    /// Lets the request go to Docker, and returns the first line of what Docker answers.
    #[track_caller]
    pub fn open(&self) -> String {
        self.open.store(true, Ordering::SeqCst);
        within(Duration::from_secs(60), "Docker to answer a call that was held", || {
            self.answer.lock().expect("no panic while it is held").clone().ok_or_else(|| "nothing".into())
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn answered(&self, head: &str) {
        let line = head.lines().next().unwrap_or_default().to_owned();
        *self.answer.lock().expect("no panic while it is held") = Some(line);
    }
}

/// Something that is done at a moment.
pub type Hook = Arc<dyn Fn(&Request) + Send + Sync>;

/// What becomes of a request.
#[derive(Clone)]
pub enum Fate {
    /// It goes to Docker.
    Pass,
    /// It is answered with this status and message, and Docker never hears of it.
    Answer(u16, String),
    /// The connection ends before Docker hears of it.
    Cut,
    /// Docker carries it out, and the connection ends instead of the answer.
    CutAfter,
    /// Docker carries it out, then this is done, and then the answer goes back.
    Then(Hook),
    /// It goes to Docker after this time, also if nobody waits for the answer any more.
    Late(Duration),
    /// The same once a gate is opened.
    Held(Gate),
}

impl Fate {
    /// [`Self::Then`].
    pub fn then(hook: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        Self::Then(Arc::new(hook))
    }
}
