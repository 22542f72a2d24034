//! The outside watcher: the same for k3nest and for plain Docker, and with no help of either.
//!
//! It sees a cluster as its user does, through the port that the load balancer publishes: /readyz,
//! then every Node's Ready condition, on one kept connection. The administrator's certificate it
//! reads where k3s writes it, through /proc of the server's process (as root, on the Docker host):
//! that costs no Docker call, which would slow down whoever is measured.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{sync::watch, time::timeout};

/// Between two looks.
const POLL: Duration = Duration::from_millis(30);

/// How long one question to the API may take.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a command may go on after its cluster is Ready.
const END: Duration = Duration::from_secs(60);

/// What is known of a cluster beforehand.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Its name, which is part of the names of all its objects.
    pub name: String,
    /// Container of the first server.
    pub server: String,
    /// The API through the load balancer.
    pub url: String,
    /// How many Nodes it is to have.
    pub nodes: usize,
}

/// The steps on the way to Ready, in their order.
pub const STEPS: [&str; 11] = [
    "host's routes known (probe removed)",
    "record written",
    "network made",
    "first server created",
    "first server started",
    "all containers run",
    "k3s wrote its kubeconfig",
    "/readyz ok through the load balancer",
    "all Nodes registered",
    "**all Nodes Ready**",
    "the command has ended",
];

const KUBECONFIG: usize = 6;
const READYZ: usize = 7;
const REGISTERED: usize = 8;
const READY: usize = 9;
const END_OF_COMMAND: usize = 10;

/// One run: when each step was done, counted from the start of the command's process.
#[derive(Clone, Debug)]
pub struct Run {
    pub steps: [Option<Duration>; STEPS.len()],
}

impl Run {
    /// From the start of the command to all Nodes Ready.
    pub fn ready(&self) -> Duration {
        self.steps[READY].expect("a run that was not Ready is an error")
    }
}

/// The watcher.
pub struct Watcher {
    runtime: tokio::runtime::Runtime,
    docker: bollard::Docker,
}

impl Watcher {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread to work with");
        let docker = runtime.block_on(async { bollard::Docker::connect_with_local_defaults() });
        Self { runtime, docker: docker.expect("Docker's local socket") }
    }

    /// Runs `command` and watches the cluster that it makes until that is Ready and the command has
    /// ended.
    ///
    /// # Errors
    /// Where one of the two does not happen within `patience`.
    pub fn run(&self, command: Command, sight: &Sight, patience: Duration) -> Result<Run, String> {
        self.runtime.block_on(self.watched(command, sight, patience))
    }

    async fn watched(&self, command: Command, sight: &Sight, patience: Duration) -> Result<Run, String> {
        let (events, heard) = watch::channel(Vec::new());
        let listening = tokio::spawn(listen(self.docker.clone(), sight.name.clone(), events));
        let (began, clock) = (Instant::now(), SystemTime::now());
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("it cannot be run: {error}"))?;
        let mut end = tokio::spawn(async move { (child.wait_with_output().await, Instant::now()) });

        let mut steps = [None; STEPS.len()];
        let mut ended = None;
        let looked = {
            let looking = self.look(sight, heard.clone(), began, &mut steps);
            tokio::pin!(looking);
            let both = async {
                loop {
                    tokio::select! {
                        looked = &mut looking => break looked,
                        end = &mut end, if ended.is_none() => ended = Some(succeeded(end)?),
                    }
                }
            };
            timeout(patience, both).await
        };
        match looked {
            Ok(looked) => looked?,
            Err(_) => return Err(format!("not Ready within {patience:?}: {steps:?}")),
        }
        let at = match ended {
            Some(at) => at,
            None => succeeded(timeout(END, end).await.map_err(|_| format!("no end within {END:?}"))?)?,
        };
        steps[END_OF_COMMAND] = Some(at - began);
        listening.abort();
        note_events(&heard.borrow(), sight, clock, &mut steps);
        Ok(Run { steps })
    }

    /// Looks until all Nodes are Ready, and notes what it sees on the way.
    async fn look(
        &self,
        sight: &Sight,
        mut heard: watch::Receiver<Vec<Event>>,
        began: Instant,
        steps: &mut [Option<Duration>],
    ) -> Result<(), String> {
        let started = |events: &Vec<Event>| events.iter().any(|e| e.is("container", "start", &sight.server));
        heard.wait_for(started).await.map_err(|_| "Docker's events ended")?;
        let inspected = self.docker.inspect_container(&sight.server, None).await;
        let state = inspected.map_err(|error| error.to_string())?.state.unwrap_or_default();
        let pid = state.pid.filter(|pid| *pid > 0).ok_or("the server's container does not run")?;
        let client = administrator(pid, &sight.url).await?;
        steps[KUBECONFIG] = Some(began.elapsed());
        let nodes: Api<Node> = Api::all(client.clone());
        loop {
            if is_ready(&client).await {
                steps[READYZ].get_or_insert(began.elapsed());
                if let Ok(Ok(list)) = timeout(ANSWER, nodes.list(&ListParams::default())).await {
                    if list.items.len() >= sight.nodes {
                        steps[REGISTERED].get_or_insert(began.elapsed());
                    }
                    if list.items.len() == sight.nodes && list.items.iter().all(node_is_ready) {
                        steps[READY] = Some(began.elapsed());
                        return Ok(());
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// When a command ended that was to succeed.
fn succeeded(
    end: Result<(std::io::Result<Output>, Instant), tokio::task::JoinError>,
) -> Result<Instant, String> {
    let (output, at) = end.map_err(|error| error.to_string())?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(at);
    }
    Err(format!("it ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// A client with the certificate that k3s wrote, once it has.
async fn administrator(pid: i64, url: &str) -> Result<Client, String> {
    let path = format!("/proc/{pid}/root/etc/rancher/k3s/k3s.yaml");
    loop {
        if let Ok(text) = std::fs::read_to_string(&path)
            // k3s may be in the middle of writing it.
            && let Ok(kubeconfig) = Kubeconfig::from_yaml(&text)
            && let Ok(mut config) =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
        {
            config.cluster_url = url.parse().map_err(|_| format!("{url} is not a URL"))?;
            config.connect_timeout = Some(ANSWER);
            config.proxy_url = None;
            return Client::try_from(config).map_err(|error| error.to_string());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    matches!(timeout(ANSWER, client.request_text(request)).await, Ok(Ok(text)) if text.trim() == "ok")
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Something that Docker did.
#[derive(Clone, Debug)]
struct Event {
    kind: String,
    action: String,
    name: String,
    /// Since 1970.
    at: Duration,
}

impl Event {
    fn is(&self, kind: &str, action: &str, name: &str) -> bool {
        self.kind == kind && self.action == action && self.name == name
    }
}

impl From<EventMessage> for Event {
    fn from(message: EventMessage) -> Self {
        let actor = message.actor.unwrap_or_default();
        let name = actor.attributes.unwrap_or_default().remove("name").or(actor.id);
        Self {
            kind: message.typ.map(|kind| kind.to_string()).unwrap_or_default(),
            action: message.action.unwrap_or_default(),
            name: name.unwrap_or_default(),
            at: Duration::from_nanos(message.time_nano.unwrap_or_default().unsigned_abs()),
        }
    }
}

/// Collects events of objects whose names contain `name`, and of probes, from now on.
async fn listen(docker: bollard::Docker, name: String, events: watch::Sender<Vec<Event>>) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let filters = [
        ("type".to_owned(), ["container", "network", "volume"].map(str::to_owned).to_vec()),
        ("event".to_owned(), ["create", "start", "destroy"].map(str::to_owned).to_vec()),
    ];
    let options = EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters.into()).build();
    let mut stream = docker.events(Some(options));
    while let Some(Ok(message)) = stream.next().await {
        let event = Event::from(message);
        if event.name.contains(&name) || event.name.contains("-probe-") {
            events.send_modify(|events| events.push(event));
        }
    }
}

/// Fills in what Docker's events tell.
fn note_events(events: &[Event], sight: &Sight, clock: SystemTime, steps: &mut [Option<Duration>]) {
    let began = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    let times = |found: &dyn Fn(&Event) -> bool| -> Vec<Duration> {
        events.iter().filter(|e| found(e)).filter_map(|e| e.at.checked_sub(began)).collect()
    };
    let first = |found: &dyn Fn(&Event) -> bool| times(found).into_iter().min();
    let last = |found: &dyn Fn(&Event) -> bool| times(found).into_iter().max();
    let is = |event: &Event, kind: &str, action: &str| event.kind == kind && event.action == action;
    let seen = [
        first(&|e| is(e, "container", "destroy") && e.name.contains("-probe-")),
        first(&|e| is(e, "volume", "create") && e.name.contains("-record-")),
        first(&|e| is(e, "network", "create")),
        first(&|e| e.is("container", "create", &sight.server)),
        first(&|e| e.is("container", "start", &sight.server)),
        last(&|e| is(e, "container", "start") && !e.name.contains("-probe-")),
    ];
    steps[..seen.len()].copy_from_slice(&seen);
}
