//! A Docker that scenarios may stop and kill, and operators that use it while their API server lives
//! outside of it.

use std::{
    io::copy,
    net::{Shutdown, TcpListener, TcpStream},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{Story, daemon::Daemon, kubectl::Kubectl, pick::Scratch, proxy::Proxy, within},
    host::host,
    process::Operator,
};

static MACHINE: Mutex<Option<Daemon>> = Mutex::new(None);

/// The machine with that Docker, for one scenario at a time. The first who asks makes it, and so does
/// who comes after a failure.
pub fn machine(story: &Story) -> Machine {
    let mut machine = MACHINE.lock().unwrap_or_else(|failed| {
        MACHINE.clear_poison();
        let mut left = failed.into_inner();
        left.take();
        left
    });
    if machine.is_none() {
        *machine = Some(Daemon::start());
        story.tell("a Docker of its own runs, with the images");
    }
    Machine(machine)
}

/// Ends it, if it was made.
pub fn remove() {
    drop(MACHINE.lock().map(|mut machine| machine.take()));
}

/// See [`machine`].
pub struct Machine(MutexGuard<'static, Option<Daemon>>);

impl Deref for Machine {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        self.0.as_ref().expect("made before it was given away")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            // It says how it was left; the next scenario gets another one.
            self.0.take();
        }
    }
}

impl Machine {
    /// Containers of all clusters on it with the label `key=value`: what must not change over a crash, once
    /// all of them run.
    pub fn made(&self, label: &str) -> Vec<String> {
        let filter = format!("label=k3nest.dev/{label}");
        let ids = self.docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).ok();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let text = self.docker(&[&["inspect"], ids.as_slice()].concat()).ok();
        let all: Vec<Value> = serde_json::from_str(&text).expect("docker prints JSON");
        let mut made: Vec<String> = all.iter().map(lasting).collect();
        made.sort();
        made
    }

    /// Names of the containers with the label that run.
    pub fn running_with(&self, label: &str) -> usize {
        let filter = format!("label=k3nest.dev/{label}");
        self.docker(&["ps", "-q", "--filter", &filter]).ok().lines().count()
    }

    /// kubectl on the machine.
    pub fn kubectl(&self, kubectl: &Kubectl, args: &[&str]) -> crate::harness::Finished {
        self.inside(&kubectl.command(args))
    }

    /// Every Node has told its API server since `moment` that it lives, and is Ready.
    pub fn nodes_have_spoken_since(
        &self,
        kubectl: &Kubectl,
        nodes: usize,
        moment: jiff::Timestamp,
    ) -> Result<(), String> {
        let list = |kind: &str, more: &[&str]| -> Result<Vec<Value>, String> {
            let text = self.kubectl(kubectl, &[&["get", kind, "-o", "json"], more].concat()).result()?;
            let list: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            Ok(list["items"].as_array().cloned().unwrap_or_default())
        };
        let leases = list("leases", &["-n", "kube-node-lease"])?;
        let spoken = leases.iter().filter(|lease| {
            let renewed = lease["spec"]["renewTime"].as_str().and_then(|time| time.parse().ok());
            renewed.is_some_and(|time: jiff::Timestamp| time > moment)
        });
        let is_ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let (spoken, ready) = (spoken.count(), list("nodes", &[])?.iter().filter(is_ready).count());
        if (spoken, ready) == (nodes, nodes) {
            return Ok(());
        }
        Err(format!("{spoken} Nodes have spoken and {ready} are Ready, of {nodes}"))
    }
}

/// What of a container that runs has to outlive Docker's death: as it was asked for, and as it came to be.
fn lasting(container: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let networks = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let addresses: Vec<String> = networks
        .iter()
        .map(|(name, place)| {
            format!("{name} {} {}", text(&place["IPAMConfig"]["IPv4Address"]), text(&place["IPAddress"]))
        })
        .collect();
    let mounts = container["Mounts"].as_array().cloned().unwrap_or_default();
    let mut volumes: Vec<String> = mounts
        .iter()
        .map(|mount| format!("{} {}", text(&mount["Name"]), text(&mount["Destination"])))
        .collect();
    volumes.sort();
    let (asked, ports) = (&container["HostConfig"]["PortBindings"], &container["NetworkSettings"]["Ports"]);
    format!("{} {addresses:?} {asked} {ports} {volumes:?}", text(&container["Name"]))
}

/// Where an operator on the machine finds the API server of [`host`], which is not on it.
pub struct Way {
    kubeconfig: String,
    _relay: Relay,
    _scratch: Scratch,
}

impl Way {
    pub fn new(machine: &Machine) -> Self {
        let host = host();
        let text = std::fs::read_to_string(&host.kubeconfig).expect("written by the fixture");
        let url = text.split_whitespace().find_map(|word| word.trim_matches('"').strip_prefix("https://"));
        let address = url.expect("a server in the kubeconfig").to_owned();
        let relay = Relay::start(machine.here(), &address);
        let scratch = Scratch::new();
        let kubeconfig = scratch.file("kubeconfig", &text.replace(&address, &relay.address));
        Self { kubeconfig, _relay: relay, _scratch: scratch }
    }

    /// An operator on the machine for one namespace of the API server outside, which reaches Docker
    /// at `docker_host`.
    pub fn operator(&self, machine: &Machine, namespace: &str, proxy: Proxy, docker_host: &str) -> Operator {
        let door = machine.door();
        let env = [("KUBECONFIG", self.kubeconfig.as_str()), ("DOCKER_HOST", docker_host)];
        Operator::start_by(namespace, proxy, &env, move |command| door.beside(&command))
    }
}

/// Passes connections on to an address that only this machine has.
struct Relay {
    address: String,
    over: Arc<AtomicBool>,
}

impl Relay {
    fn start(here: &str, to: &str) -> Self {
        let listener = TcpListener::bind((here, 0)).expect("the address is ours");
        let address = listener.local_addr().expect("bound").to_string();
        let over = Arc::new(AtomicBool::new(false));
        let (end, to) = (over.clone(), to.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that breaks is the client's to report.
                if let Ok(server) = TcpStream::connect(&to) {
                    let _ = join(client, server);
                }
            }
        });
        Self { address, over }
    }
}

/// Copies both ways until one side ends.
fn join(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let pairs = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (mut from, mut to) in pairs {
        thread::spawn(move || {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(&self.address);
    }
}

/// How long the operator may take to notice that Docker has gone or has come.
pub const NOTICED: Duration = Duration::from_secs(40);

/// Waits until containers with the label run.
#[track_caller]
pub fn runs(machine: &Machine, label: &str, count: usize, patience: Duration) {
    within(patience, &format!("{count} containers with {label} to run"), || {
        let running = machine.running_with(label);
        if running == count { Ok(()) } else { Err(format!("{running} run")) }
    });
}
