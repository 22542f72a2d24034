//! One request and its answer.

use std::{
    io::{BufReader, Read, Result, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use super::{
    Fate, Hook, Open, Request, Shared,
    http::{closing, parse, pass_body, read_head, upgrades},
};

/// Serves the one request of a connection.
pub fn serve(shared: &Shared, client: UnixStream) -> Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let Some(head) = read_head(&mut from)? else { return Ok(()) };
    let (request, rule) = shared.note(parse(&head));
    let exchange = Exchange::open(shared, head, request, &client)?;
    let result = match rule(&exchange.request) {
        Fate::Pass => exchange.pass(from, None),
        Fate::Then(hook) => exchange.pass(from, Some(After { hook, cut: false })),
        Fate::CutAfter => exchange.pass(from, Some(After { hook: Arc::new(|_| {}), cut: true })),
        Fate::Answer(status, message) => exchange.answer(from, status, &message),
        Fate::Late(time) => {
            let due = Instant::now() + time;
            exchange.late(from, || Instant::now() >= due, |_| ())
        }
        Fate::Held(gate) => exchange.late(from, || gate.is_open(), |head| gate.answered(head)),
        Fate::Cut => Ok(()),
    };
    let _ = client.shutdown(Shutdown::Both);
    result
}

/// What is done once Docker has carried a request out.
struct After {
    hook: Hook,
    cut: bool,
}

/// A request under way, known to the proxy as long as it lasts.
struct Exchange<'a> {
    shared: &'a Shared,
    id: usize,
    head: String,
    request: Request,
    client: &'a UnixStream,
    frozen: Arc<AtomicBool>,
}

impl<'a> Exchange<'a> {
    fn open(shared: &'a Shared, head: String, request: Request, client: &'a UnixStream) -> Result<Self> {
        let id = shared.next.fetch_add(1, Ordering::SeqCst);
        let frozen = Arc::new(AtomicBool::new(false));
        let open = Open { id, request: request.clone(), client: client.try_clone()?, frozen: frozen.clone() };
        shared.open().push(open);
        Ok(Self { shared, id, head, request, client, frozen })
    }

    /// Passes the request on and the answer back.
    fn pass(&self, mut from: BufReader<UnixStream>, after: Option<After>) -> Result<()> {
        let docker = UnixStream::connect(&self.shared.upstream)?;
        thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let result = self.pass_back(&docker, after);
                // Ends the wait for what else the client may say.
                let _ = self.client.shutdown(Shutdown::Both);
                result
            });
            let asked = self.ask(&mut from, &docker);
            if asked.is_err() {
                let _ = docker.shutdown(Shutdown::Both);
            }
            asked.and(answering.join().expect("no panic"))
        })
    }

    /// Sends the request, and sees whether the client goes away.
    fn ask(&self, from: &mut BufReader<UnixStream>, mut docker: &UnixStream) -> Result<()> {
        if upgrades(&self.head) {
            docker.write_all(self.head.as_bytes())?;
            std::io::copy(from, &mut docker)?;
            // The end of a stream's input; Docker may still have something to say.
            return docker.shutdown(Shutdown::Write);
        }
        docker.write_all(closing(&self.head).as_bytes())?;
        pass_body(&self.head, from, &mut docker)?;
        std::io::copy(from, &mut std::io::sink())?;
        docker.shutdown(Shutdown::Both)
    }

    fn pass_back(&self, docker: &UnixStream, after: Option<After>) -> Result<()> {
        let mut answers = BufReader::new(docker.try_clone()?);
        if let Some(After { hook, cut }) = after {
            let mut begun = read_head(&mut answers)?.unwrap_or_default().into_bytes();
            if self.request.is("POST", "/images/") {
                // Docker answers at once that it begins; what it has done is known at the end.
                answers.read_to_end(&mut begun)?;
            }
            hook(&self.request);
            if cut {
                return docker.shutdown(Shutdown::Both);
            }
            let mut client = self.client;
            client.write_all(&begun)?;
        }
        self.relay(&mut answers)
    }

    fn relay(&self, answers: &mut BufReader<UnixStream>) -> Result<()> {
        let (mut client, mut bytes) = (self.client, vec![0; 64 << 10]);
        loop {
            let read = answers.read(&mut bytes)?;
            if self.frozen.load(Ordering::SeqCst) {
                self.shared.wait_until(|| false);
                return Ok(());
            }
            if read == 0 {
                return Ok(());
            }
            client.write_all(&bytes[..read])?;
        }
    }

    fn answer(&self, mut from: BufReader<UnixStream>, status: u16, message: &str) -> Result<()> {
        pass_body(&self.head, &mut from, &mut std::io::sink())?;
        let body = serde_json::json!({ "message": message }).to_string();
        let length = body.len();
        let mut client = self.client;
        write!(
            client,
            "HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    /// Passes the request on once it is `due`, whole and to the end, whoever still waits. `answered`
    /// is told the head of what Docker says.
    fn late(
        &self,
        mut from: BufReader<UnixStream>,
        due: impl Fn() -> bool,
        answered: impl Fn(&str),
    ) -> Result<()> {
        let mut body = Vec::new();
        pass_body(&self.head, &mut from, &mut body)?;
        if !self.shared.wait_until(due) {
            return Ok(());
        }
        let mut docker = UnixStream::connect(&self.shared.upstream)?;
        docker.write_all(closing(&self.head).as_bytes())?;
        docker.write_all(&body)?;
        let mut answers = BufReader::new(docker);
        let head = read_head(&mut answers)?.unwrap_or_default();
        answered(&head);
        let mut client = self.client;
        if client.write_all(head.as_bytes()).and_then(|()| self.relay(&mut answers)).is_err() {
            std::io::copy(&mut answers, &mut std::io::sink())?;
        }
        Ok(())
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.shared.open().retain(|open| open.id != self.id);
    }
}
