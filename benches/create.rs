//! From nothing to Ready: `k3nest apply` against plain `docker run` of the same containers, in
//! pairs, in alternating order.

use std::{fmt::Write, path::PathBuf, process::Command, time::Duration};

use crate::{
    harness::{
        Cluster, Nest, Story,
        docker::docker,
        pick,
        proxy::{Proxy, Request},
    },
    machine,
    plain::{self, Plain},
    stats::Summary,
    watcher::{Run, STEPS, Sight, Watcher},
};

/// How long a cluster may take until it is Ready.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many servers and agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub servers: usize,
    pub agents: usize,
}

impl Size {
    /// What the ratio is to be at most.
    fn goal(self) -> f64 {
        if self.nodes() == 1 { 1.10 } else { 1.15 }
    }

    fn nodes(self) -> usize {
        self.servers + self.agents
    }

    fn spec(self) -> String {
        format!("servers: {{replicas: {}}}\nagents: {{replicas: {}}}", self.servers, self.agents)
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write SERVERS+AGENTS, such as 1+2");
        let (servers, agents) = text.split_once('+').unwrap_or((text, "0"));
        let number = |text: &str| text.trim().parse().map_err(|_| wrong());
        Ok(Self { servers: number(servers)?, agents: number(agents)? })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        write!(f, "{}", words(self.servers, "server"))?;
        if self.agents > 0 { write!(f, ", {}", words(self.agents, "agent")) } else { Ok(()) }
    }
}

/// Measures each of `sizes` with `pairs` pairs. Returns what came of it, as Markdown.
pub fn measure(sizes: &[Size], pairs: usize, calm: Duration) -> String {
    let watcher = Watcher::new();
    let mut table = String::from(
        "| cluster | pairs | plain `docker run`, s | `k3nest apply`, s | ratio | goal |\n|---|---|---|---|---|---|\n",
    );
    let mut breakdowns = String::new();
    for &size in sizes {
        let Series { ours, theirs, calls, restless } = series(&watcher, size, pairs, calm);
        let ratios: Vec<f64> = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| a.ready().as_secs_f64() / b.ready().as_secs_f64())
            .collect();
        let ratio = Summary::of(ratios);
        let seconds = |runs: &[Run]| Summary::of_seconds(runs.iter().map(Run::ready));
        let verdict = if ratio.median <= size.goal() { "met" } else { "missed" };
        let goal = size.goal();
        let (plain, nest) = (seconds(&theirs), seconds(&ours));
        writeln!(table, "| {size} | {pairs} | {plain} | {nest} | {ratio} | {goal:.2}, {verdict} |")
            .expect("a string takes everything");
        breakdowns += &breakdown(size, &ours, &theirs, &calls, restless);
    }
    format!(
        "### From nothing to Ready\n\n{table}\nMedians, in brackets the quartiles; the ratio is taken pair by pair.\n{breakdowns}"
    )
}

/// What the pairs of one size came to.
struct Series {
    ours: Vec<Run>,
    theirs: Vec<Run>,
    /// k3nest's calls of Docker in one more run, by kind.
    calls: Calls,
    /// Before how many runs the machine did not come to rest.
    restless: usize,
}

fn series(watcher: &Watcher, size: Size, pairs: usize, calm: Duration) -> Series {
    let story = Story::new("create");
    let cluster = Cluster::named(&pick::name("bench"), "default");
    let file = cluster.write(&size.spec());
    // Images and caches are warm from here on, and everything is known.
    cluster.apply(&size.spec()).exits(0);
    let plain = Plain::of(&cluster);
    let sight = Sight {
        name: cluster.name.clone(),
        server: plain.first_server.clone(),
        url: plain.url.clone(),
        nodes: size.nodes(),
    };
    cluster.verb(&["delete"]).exits(0);

    let mut series = Series { ours: Vec::new(), theirs: Vec::new(), calls: Calls::default(), restless: 0 };
    for pair in 0..pairs {
        for first in [true, false] {
            series.restless += usize::from(!machine::calm(calm));
            // AB BA AB …
            if first == (pair % 2 == 0) {
                series.theirs.push(run_plain(watcher, &plain, &sight, pair == 0));
            } else {
                let apply = Nest::new().command(&["apply", "-f", &file]);
                series.ours.push(run_nest(watcher, apply, &sight));
                cluster.verb(&["delete"]).exits(0);
            }
        }
        let (ours, theirs) = (series.ours[pair].ready(), series.theirs[pair].ready());
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        story.tell(&format!(
            "{size}, pair {}: k3nest {ours:.2?}, plain {theirs:.2?}, ratio {ratio:.3}",
            pair + 1
        ));
    }
    series.calls = Calls::of(watcher, &file, &sight);
    cluster.verb(&["delete"]).exits(0);
    series
}

fn run_nest(watcher: &Watcher, apply: Command, sight: &Sight) -> Run {
    watcher.run(apply, sight, PATIENCE).unwrap_or_else(|error| panic!("k3nest apply: {error}"))
}

fn run_plain(watcher: &Watcher, plain: &Plain, sight: &Sight, look_at_it: bool) -> Run {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/plain-docker.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(plain.folder());
    let run = watcher.run(command, sight, plain::PATIENCE + PATIENCE);
    if run.is_ok() && look_at_it {
        plain.is_the_same();
    }
    if run.is_err() {
        eprintln!("{}", docker(&["logs", "--tail", "40", &sight.server]));
    }
    plain.remove();
    run.unwrap_or_else(|error| panic!("plain-docker.sh: {error}"))
}

/// k3nest's calls of Docker while it makes a cluster.
#[derive(Default)]
struct Calls {
    first: Duration,
    kinds: std::collections::BTreeMap<String, usize>,
}

impl Calls {
    /// Of one more run, through a proxy; its times do not count.
    fn of(watcher: &Watcher, file: &str, sight: &Sight) -> Self {
        let proxy = Proxy::new();
        let apply = Nest::new().env("DOCKER_HOST", &proxy.url()).command(&["apply", "-f", file]);
        let began = std::time::Instant::now();
        run_nest(watcher, apply, sight);
        let mut calls = Self::default();
        for request in proxy.requests() {
            if calls.kinds.is_empty() {
                calls.first = request.at - began;
            }
            *calls.kinds.entry(kind(&request)).or_default() += 1;
        }
        calls
    }
}

/// What a request asks for, without names and ids: `POST containers/start`.
fn kind(request: &Request) -> String {
    let path = request.path.split('?').next().unwrap_or_default();
    let mut words = path.trim_matches('/').split('/');
    let objects = words.next().unwrap_or_default();
    // Names of images have slashes.
    let verb = words.next_back().unwrap_or_default();
    let verb = if verb.len() < 12 && verb.chars().all(|c| c.is_ascii_lowercase()) { verb } else { "" };
    format!("{} {}", request.method, [objects, verb].join("/").trim_end_matches('/'))
}

/// Where the time goes, on both sides.
fn breakdown(size: Size, ours: &[Run], theirs: &[Run], calls: &Calls, restless: usize) -> String {
    let mut text = format!(
        "\n#### {size}: where it goes\n\nSeconds since the start of the process, medians.\n\n| step | `k3nest apply` | plain | difference |\n|---|---|---|---|\n"
    );
    let at = |runs: &[Run], step: usize| {
        let times: Vec<Duration> = runs.iter().filter_map(|run| run.steps[step]).collect();
        (!times.is_empty()).then(|| Summary::of_seconds(times).median)
    };
    let show = |seconds: Option<f64>| seconds.map_or("–".to_owned(), |seconds| format!("{seconds:.2}"));
    let first = calls.first.as_secs_f64();
    writeln!(text, "| first call of Docker | {first:.2} | | |").expect("a string takes everything");
    for (step, name) in STEPS.iter().enumerate() {
        let (our, their) = (at(ours, step), at(theirs, step));
        let difference = our.zip(their).map_or(String::new(), |(a, b)| format!("{:+.2}", a - b));
        writeln!(text, "| {name} | {} | {} | {difference} |", show(our), show(their))
            .expect("a string takes everything");
    }
    let all: usize = calls.kinds.values().sum();
    let kinds: Vec<String> = calls.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    writeln!(text, "\nk3nest's {all} calls of Docker: {}.", kinds.join(", "))
        .expect("a string takes everything");
    if restless > 0 {
        writeln!(text, "The machine was busy with other things before {restless} of the runs.")
            .expect("a string takes everything");
    }
    text
}
