//! A proxy in front of Docker's socket: it logs every request, and may answer or hold one instead
//! of passing it on.
//!
//! Requests are read one by one, so that each on a kept-alive connection is seen; answers are passed
//! on as bytes. Docker's clients do not send a request before the last one's answer has ended, which
//! is what makes that safe. After a request that turns the connection into a stream (exec, attach,
//! build) bytes go both ways untouched.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use super::pick::Scratch;

/// Where the proxy passes requests on to.
const DOCKER: &str = "/var/run/docker.sock";

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query, without the API version.
    pub path: String,
    /// When it came.
    pub at: Instant,
}

impl Request {
    /// Whether it asks Docker to change something.
    pub fn changes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// Whether it is `method` on a path that starts with `path`.
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.starts_with(path)
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It goes to Docker.
    Pass,
    /// It is answered with this status and message, and Docker never hears of it.
    Answer(u16, String),
    /// The connection ends before Docker hears of it.
    Cut,
}

type Rule = dyn Fn(&Request) -> Fate + Send + Sync;

/// A running proxy; it ends when dropped.
pub struct Proxy {
    scratch: Scratch,
    log: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    /// One that passes everything on.
    pub fn new() -> Self {
        Self::with_rule(|_| Fate::Pass)
    }

    /// One that asks `rule` what to do with each request. A rule may take its time.
    pub fn with_rule(rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path("docker.sock")).expect("a new socket");
        let log = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (entries, end, rule): (_, _, Arc<Rule>) = (log.clone(), over.clone(), Arc::new(rule));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (entries, rule) = (entries.clone(), rule.clone());
                // A connection that breaks is the client's to report.
                thread::spawn(move || serve(client, &entries, &*rule));
            }
        });
        Self { scratch, log, over }
    }

    /// For DOCKER_HOST.
    pub fn url(&self) -> String {
        format!("unix://{}", self.scratch.path("docker.sock"))
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("no panic while it is held").clone()
    }

    /// The requests so far that asked for a change.
    pub fn changes(&self) -> Vec<String> {
        self.requests().iter().filter(|r| r.changes()).map(ToString::to_string).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _ = UnixStream::connect(self.scratch.path("docker.sock"));
    }
}

fn serve(client: UnixStream, log: &Mutex<Vec<Request>>, rule: &Rule) -> std::io::Result<()> {
    let docker = UnixStream::connect(DOCKER)?;
    let (mut answers, mut back) = (docker.try_clone()?, client.try_clone()?);
    let answering = thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut requests = BufReader::new(client.try_clone()?);
    let result = pass_on(&mut requests, &docker, &client, log, rule);
    // Docker sees the end of a stream's input and may still have something to say.
    let _ = docker.shutdown(Shutdown::Write);
    if result.is_err() {
        let _ = docker.shutdown(Shutdown::Both);
    }
    let _ = answering.join();
    result
}

/// Passes requests on until the client has no more.
fn pass_on(
    requests: &mut BufReader<UnixStream>,
    mut docker: &UnixStream,
    mut client: &UnixStream,
    log: &Mutex<Vec<Request>>,
    rule: &Rule,
) -> std::io::Result<()> {
    while let Some(head) = read_head(requests)? {
        let request = parse(&head);
        log.lock().expect("no panic while it is held").push(request.clone());
        match rule(&request) {
            Fate::Pass => {
                docker.write_all(head.as_bytes())?;
                if header(&head, "upgrade").is_some() {
                    return std::io::copy(requests, &mut docker).map(|_| ());
                }
                pass_body(&head, requests, &mut docker)?;
            }
            Fate::Answer(status, message) => {
                pass_body(&head, requests, &mut std::io::sink())?;
                let body = serde_json::json!({ "message": message }).to_string();
                write!(
                    client,
                    "HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
            }
            Fate::Cut => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }
    Ok(())
}

/// The lines up to the empty one that ends a request's head. None at the end of the connection.
fn read_head(requests: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if requests.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn parse(head: &str) -> Request {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default();
    let unversioned = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    Request { method, path: unversioned.unwrap_or(path).to_owned(), at: Instant::now() }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value.trim()))
}

/// Passes on the body that `head` announces, whole.
fn pass_body(head: &str, from: &mut impl BufRead, to: &mut impl Write) -> std::io::Result<()> {
    if let Some(length) = header(head, "content-length").and_then(|text| text.parse().ok()) {
        std::io::copy(&mut from.take(length), to)?;
    } else if header(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        while pass_chunk(from, to)? > 0 {}
    }
    to.flush()
}

/// Passes on one chunk with its frame and returns its size; 0 is the last one.
fn pass_chunk(from: &mut impl BufRead, to: &mut impl Write) -> std::io::Result<u64> {
    let mut frame = String::new();
    from.read_line(&mut frame)?;
    let size = u64::from_str_radix(frame.trim().split(';').next().unwrap_or_default(), 16)
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    to.write_all(frame.as_bytes())?;
    // The chunk and the line end behind it; no client of ours sends trailers.
    std::io::copy(&mut from.take(size + 2), to)?;
    Ok(size)
}
