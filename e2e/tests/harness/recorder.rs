//! Records what happens in Docker during a run, and finds commands in node containers that are not
//! on the committed list: a command that only our offline image knows would work in every test and
//! fail at every user's.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use super::{docker::docker, within};

/// The commands that may be run in nodes.
const ALLOWED: &str = include_str!("../../exec-allowlist");

/// How many events of a cluster a failure shows.
const SHOWN: usize = 40;

/// Everything recorded, in order.
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

/// Names of the clusters that this run made: others on the machine are none of its business.
static WATCHED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Something that happened to a container.
#[derive(Clone, Debug)]
struct Event {
    action: String,
    container: String,
    /// Name of the cluster it belongs to.
    cluster: String,
    role: String,
}

/// From now on, commands in nodes of the cluster `name` count.
pub fn watch(name: &str) {
    WATCHED.lock().expect("no panic while it is held").insert(name.to_owned());
}

/// The last events of the cluster `name`, a line each.
pub fn last_events(name: &str) -> Vec<String> {
    let events = EVENTS.lock().expect("no panic while it is held");
    let mut lines: Vec<String> = events
        .iter()
        .filter(|event| event.cluster == name)
        .map(|event| format!("{} {}", event.container, event.action))
        .collect();
    lines.split_off(lines.len().saturating_sub(SHOWN))
}

/// A recording that goes on until it is judged.
pub struct Recorder {
    docker_events: Child,
    reader: JoinHandle<()>,
}

impl Recorder {
    /// Begins to record; returns once the stream is known to flow.
    pub fn start() -> Self {
        let mut docker_events = Command::new("docker")
            .args(["events", "--filter", "type=container", "--format", "{{json .}}"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker can be run");
        let lines = BufReader::new(docker_events.stdout.take().expect("piped")).lines();
        let reader = std::thread::spawn(move || {
            for event in lines.map_while(Result::ok).filter_map(|line| Event::parse(&line)) {
                EVENTS.lock().expect("no panic while it is held").push(event);
            }
        });
        let recorder = Self { docker_events, reader };
        recorder.flush();
        recorder
    }

    /// Waits until everything that has happened so far is recorded: events come in order, so an
    /// event of our own that was seen has all earlier ones before it.
    fn flush(&self) {
        let name = format!("e2e-mark-{:08x}", rand::random::<u32>());
        within(Duration::from_secs(20), "docker events to flow", || {
            let _ = docker(&["create", "--name", &name, super::docker::TOOLS]);
            let _ = docker(&["rm", "-f", &name]);
            let events = EVENTS.lock().expect("no panic while it is held");
            match events.iter().any(|event| event.container == name) {
                true => Ok(()),
                false => Err(format!("{} events, none of {name}", events.len())),
            }
        });
    }

    /// Ends the recording. The commands in watched nodes that are not on the list, if any.
    pub fn end(mut self) -> Vec<String> {
        self.flush();
        let _ = self.docker_events.kill();
        let _ = self.docker_events.wait();
        let _ = self.reader.join();
        let watched = WATCHED.lock().expect("no panic while it is held");
        let events = EVENTS.lock().expect("no panic while it is held");
        let mut found: Vec<String> = events
            .iter()
            .filter(|event| event.role == "server" && watched.contains(&event.cluster))
            .filter_map(|event| Some((event.action.strip_prefix("exec_create: ")?, &event.container)))
            .filter(|(command, _)| !is_allowed(command))
            .map(|(command, container)| format!("{container}: {command}"))
            .collect();
        found.dedup();
        found
    }
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let attribute =
            |name: &str| event["Actor"]["Attributes"][name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            action: event["Action"].as_str()?.to_owned(),
            container: attribute("name"),
            cluster: attribute("k3nest.dev/name"),
            role: attribute("k3nest.dev/role"),
        })
    }
}

fn is_allowed(command: &str) -> bool {
    let listed = ALLOWED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    listed.into_iter().any(|line| match line.strip_suffix('*') {
        Some(start) => command.starts_with(start),
        None => command.trim() == line,
    })
}

/// The recorder finds what it is there to find.
pub fn finds_what_is_not_listed() {
    assert!(is_allowed("/bin/k3s ctr -n k8s.io images import -"));
    assert!(is_allowed("/bin/k3s ctr -n k8s.io images ls -q"));
    assert!(!is_allowed("/bin/k3s ctr -n k8s.io images import - --all-platforms"));
    assert!(!is_allowed("/bin/sh -c true"));
    assert!(!is_allowed(""));
}
