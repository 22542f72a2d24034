//! The operator as a process, started again whenever it ends, as a kubelet would.

use std::{
    fs::{File, OpenOptions},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use crate::{
    harness::{
        Nest,
        command::send_signal,
        pick::Scratch,
        proxy::{Proxy, Request},
        victim::Victim,
        within,
    },
    host::host,
};

/// Between two looks whether the process lives.
const LOOK: Duration = Duration::from_millis(50);

/// Seconds between tries at most: dozens of calls fail in one life, one after the other.
const LONGEST_RETRY: &str = "4";

/// How many lines of its log a failure shows.
const TAIL: usize = 80;

/// How long it may take to come up on a machine that is busy.
const STARTED: Duration = Duration::from_secs(60);

/// An operator for the clusters of one namespace, behind a proxy of its own. Dropping it kills it.
pub struct Operator {
    pub proxy: Proxy,
    /// Its process; a rule of the proxy may kill it.
    pub victim: Victim,
    namespace: String,
    scratch: Scratch,
    known: Arc<Mutex<Known>>,
}

/// What the one who looks after the process knows.
struct Known {
    child: Child,
    /// How each former process ended: its exit code, 128 and the signal's number for a signal.
    ends: Vec<i32>,
    over: bool,
}

impl Operator {
    /// Starts one for `namespace`, in front of the Docker behind `proxy`. It asks the API server of
    /// [`host()`] and joins load balancers to the network of its Node, as in a Pod there.
    pub fn start(namespace: &str, proxy: Proxy) -> Self {
        let address = host().node_address.clone();
        Self::start_with(namespace, proxy, &[("HOST_IP", &address)])
    }

    /// The same with an environment of its own, which need not name a Node: load balancers are
    /// reached through gateways then.
    pub fn start_with(namespace: &str, proxy: Proxy, env: &[(&str, &str)]) -> Self {
        Self::start_by(namespace, proxy, env, |command| command)
    }

    /// The same, with its command made another, such as one that runs elsewhere. It still has to be a
    /// child of ours.
    pub fn start_by(
        namespace: &str,
        proxy: Proxy,
        env: &[(&str, &str)],
        placed: impl Fn(Command) -> Command + Send + 'static,
    ) -> Self {
        let scratch = Scratch::new();
        let victim = Victim::default();
        let mut nest = Nest::new()
            .env("KUBECONFIG", &host().kubeconfig)
            .env("DOCKER_HOST", &proxy.url())
            .env("K3NEST_NAMESPACE", namespace)
            .env("K3NEST_LONGEST_RETRY", LONGEST_RETRY)
            .env("K3NEST_LOG", "info,k3nest=debug");
        for (name, value) in env {
            nest = nest.env(name, value);
        }
        let log = scratch.path("log");
        let spawn = move |victim: &Victim| {
            let file = OpenOptions::new().create(true).append(true).open(&log).expect("a writable log");
            // Another process may take the port meanwhile; then this one ends, and is started again.
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let address = free.expect("a free port").to_string();
            let command = nest.command(&["operator", "--metrics-address", &address]);
            let mut command = placed(command);
            let output = |file: &File| Stdio::from(file.try_clone().expect("an open file"));
            command.stdin(Stdio::null()).stdout(output(&file)).stderr(output(&file));
            let child = command.spawn().expect("k3nest can be run");
            victim.is(child.id());
            child
        };
        let child = spawn(&victim);
        let known = Arc::new(Mutex::new(Known { child, ends: Vec::new(), over: false }));
        let (watched, process) = (known.clone(), victim.clone());
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK);
                let mut known = watched.lock().expect("no panic while it is held");
                if known.over {
                    return;
                }
                if let Some(status) = known.child.try_wait().expect("a child of ours") {
                    known.ends.push(status.code().unwrap_or(128 + status.signal().unwrap_or_default()));
                    known.child = spawn(&process);
                }
            }
        });
        Self { proxy, victim, namespace: namespace.into(), scratch, known }
    }

    /// Waits until it listens to Docker's events, and returns when that was.
    #[track_caller]
    pub fn listens(&self) -> Request {
        self.proxy.hears(STARTED, "the operator to listen to events", Request::is_events)
    }

    /// How each process so far has ended, but the one that runs.
    pub fn ends(&self) -> Vec<i32> {
        self.known().ends.clone()
    }

    /// It ended by the kills of its victim, and in no other way.
    #[track_caller]
    pub fn ended_by_kills_only(&self) {
        let kills = self.victim.kills();
        let ends = within(Duration::from_secs(10), "the killed process to be noticed", || {
            let ends = self.ends();
            if ends.len() >= kills { Ok(ends) } else { Err(format!("{ends:?} of {kills}")) }
        });
        assert_eq!(ends, vec![128 + 9; kills], "{}", self.log());
    }

    /// Holds it still while something is done that it would get into the middle of.
    pub fn held<T>(&self, act: impl FnOnce() -> T) -> T {
        let pid = self.pid();
        send_signal(pid, "STOP");
        let done = act();
        send_signal(pid, "CONT");
        done
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path("log")).unwrap_or_default()
    }

    /// The process that runs now.
    pub fn pid(&self) -> u32 {
        self.known().child.id()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while it is held")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!("--- the log of the operator of {} ends with\n{tail}", self.namespace);
        }
        let mut known = self.known();
        known.over = true;
        let _ = known.child.kill();
        let _ = known.child.wait();
    }
}
