//! Steps taken in the simulated world, polled by hand: no runtime, no waiting, no chance.

use std::{collections::BTreeMap, future::Future, pin::pin, task::Context, time::Duration};

use futures::task::noop_waker;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

use super::{
    docker::{Docker, SimImage, bare_container},
    engine::{SimClusters, SimEngine},
    specs::{Draft, REPOSITORIES, SHARED_NETWORK, VERSIONS, dev},
};
use crate::{
    api::{Identity, K3sClusterStatus, condition},
    plan::{Adopter, ContainerState, ContainerWant, EngineInfo, LOAD_BALANCER_IMAGE, Network, Recover},
    reconcile::{Outcome, Removal, Request, World, remove, step},
};

/// More turns than any step takes; one that takes more waits for nobody.
const MAX_TURNS: usize = 20_000;

/// More steps than any history needs to settle after its last accident.
pub const MAX_STEPS: usize = 80;

/// What a probe reads: one route, and a kernel with room for nodes.
const MACHINE: &str = "/proc/net/route:Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
    /proc/net/route:eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
    /proc/sys/fs/inotify/max_user_instances:8192\n";

/// A Docker host under observation.
pub struct Lab {
    pub engine: SimEngine,
    pub world: World<SimEngine, SimClusters>,
    /// The last report on each cluster, by uid, as the API server would keep it.
    pub former: BTreeMap<String, K3sClusterStatus>,
    /// The last wish to recover, which stays once it is there.
    pub wish: Option<Recover>,
}

/// How many cases a property is tried with; K3NEST_WALKS wins. The same ones each time, unless
/// K3NEST_WALKS_SEED says otherwise, as `make soak` does: a change is to be judged by what it changes.
/// What fails is shrunk, and its seed kept in proptest-regressions/, from where it is tried first ever
/// after: to be committed.
pub fn cases(default: u32) -> Config {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let cases = number("K3NEST_WALKS").and_then(|n| n.try_into().ok()).unwrap_or(default);
    let rng_seed = RngSeed::Fixed(number("K3NEST_WALKS_SEED").unwrap_or(1));
    let regressions = FileFailurePersistence::SourceParallel("proptest-regressions");
    Config {
        cases,
        failure_persistence: Some(Box::new(regressions)),
        max_shrink_iters: 2000,
        rng_seed,
        ..Config::default()
    }
}

/// Half of the cases of a property, for each of two tests that two processors run at once. proptest's own
/// variables would overrule this for both, so there are others.
pub fn half(config: Config, second: bool) -> Config {
    let RngSeed::Fixed(seed) = config.rng_seed else { panic!("{:?} is not repeatable", config.rng_seed) };
    // Far from every seed that somebody may try next.
    let seed = if second { !seed } else { seed };
    Config { cases: config.cases.div_ceil(2), rng_seed: RngSeed::Fixed(seed), ..config }
}

/// A Docker host with every image to be had and somebody else's networks and containers.
pub fn host() -> Docker {
    let mut docker = Docker {
        info: EngineInfo { id: "ENGINE-A".into(), cgroup_version: 2, ..EngineInfo::default() },
        machine: MACHINE.into(),
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        boot_millis: 1000,
        ..Docker::default()
    };
    let declared = ["/var/lib/cni", "/var/lib/kubelet", "/var/lib/rancher/k3s", "/var/log"];
    for (repository, own) in REPOSITORIES.iter().zip([&["/srv"][..], &["/opt", "/srv"]]) {
        for version in VERSIONS {
            let volumes = declared.iter().chain(own).map(|v| (*v).to_owned()).collect();
            let image = SimImage { present: false, pullable: true, volumes };
            docker.images.insert(format!("{repository}:{}", version.replace('+', "-")), image);
        }
    }
    let image = SimImage { present: false, pullable: true, volumes: Vec::new() };
    docker.images.insert(LOAD_BALANCER_IMAGE.into(), image);
    foreign_network(&mut docker, "bridge", "172.17.0.0/16");
    foreign_network(&mut docker, SHARED_NETWORK, "172.30.0.0/24");
    foreign_container(&mut docker, "somebody", SHARED_NETWORK);
    docker
}

/// A network that is not ours.
pub fn foreign_network(docker: &mut Docker, name: &str, subnet: &str) {
    let network = Network {
        id: docker.id("foreign"),
        name: name.into(),
        labels: [("who".into(), "somebody".into())].into(),
        subnet: Some(subnet.parse().unwrap()),
        gateway: None,
        ip_range: None,
        created: docker.now,
    };
    docker.networks.push(network);
}

/// A running container that is not ours.
pub fn foreign_container(docker: &mut Docker, name: &str, network: &str) {
    let address = "172.30.0.2".parse().unwrap();
    let want = ContainerWant { name: name.into(), network: network.into(), address, ..bare_container() };
    let id = docker.networks.iter().find(|n| n.name == network).unwrap().id.clone();
    docker.place_container(&want, ContainerState::Running, id, BTreeMap::new()).unwrap();
}

fn ready_condition(outcome: &Outcome) -> Option<&Condition> {
    outcome.status.conditions.iter().find(|c| c.type_ == condition::READY)
}

/// Whether the condition Ready is True.
pub fn is_ready(outcome: &Outcome) -> bool {
    ready_condition(outcome).is_some_and(|c| c.status == "True")
}

/// The reason of the condition Ready.
pub fn reason(outcome: &Outcome) -> &str {
    ready_condition(outcome).map(|c| c.reason.as_str()).unwrap_or_default()
}

/// The message of the condition Ready.
pub fn message(outcome: &Outcome) -> &str {
    ready_condition(outcome).map(|c| c.message.as_str()).unwrap_or_default()
}

/// A host with the cluster dev, which is Ready.
pub fn ready(draft: &Draft) -> Lab {
    let mut lab = Lab::new(host());
    assert!(lab.settle(draft, &dev()).as_ref().is_some_and(is_ready));
    lab
}

/// Why dev is as it is in the end.
pub fn settled(lab: &mut Lab, draft: &Draft) -> String {
    let outcome = lab.settle_or_block(draft, &dev());
    outcome.as_ref().map(reason).unwrap_or_default().to_owned()
}

impl Lab {
    pub fn new(docker: Docker) -> Self {
        let engine = SimEngine::new(docker);
        let clusters = SimClusters(engine.clone());
        let world = World::new(engine.clone(), clusters, Box::new(|_| {}));
        Self { engine, world, former: BTreeMap::new(), wish: None }
    }

    pub fn now(&self) -> Timestamp {
        self.engine.docker().now
    }

    pub fn pass(&self, time: Duration) {
        let mut docker = self.engine.docker();
        docker.now += time;
    }

    /// Polls to the end; None if the one who waited was cut off.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let waker = noop_waker();
        for _ in 0..MAX_TURNS {
            if let std::task::Poll::Ready(end) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(end);
            }
            if self.engine.take_cut() {
                return None;
            }
        }
        panic!("it waits for nobody");
    }

    /// Polls two in turns, as `turns` has it over and over, to the end of both.
    pub fn run_both<T>(
        &self,
        a: impl Future<Output = T>,
        b: impl Future<Output = T>,
        turns: &[bool],
    ) -> [Option<T>; 2] {
        let (mut a, mut b) = (Box::pin(futures::FutureExt::fuse(a)), Box::pin(futures::FutureExt::fuse(b)));
        let waker = noop_waker();
        let (mut ends, mut over) = ([None, None], [false, false]);
        for turn in 0..MAX_TURNS {
            let first = turns.get(turn % turns.len().max(1)).copied().unwrap_or(turn % 2 == 0);
            let who = if over[usize::from(!first)] { usize::from(first) } else { usize::from(!first) };
            let mut context = Context::from_waker(&waker);
            let polled = if who == 0 { a.as_mut().poll(&mut context) } else { b.as_mut().poll(&mut context) };
            if let std::task::Poll::Ready(end) = polled {
                (ends[who], over[who]) = (Some(end), true);
            }
            over[who] |= self.engine.take_cut();
            if over == [true, true] {
                return ends;
            }
        }
        panic!("they wait for each other");
    }

    /// A request that knows the former report, as the operator's does.
    pub fn request(&self, draft: &Draft, identity: &Identity) -> Request {
        let former = self.former.get(&identity.uid).cloned().unwrap_or_default();
        Request { former, recover: self.wish.clone(), ..draft.request(identity) }
    }

    /// One step; None if it was cut off.
    pub fn step(&mut self, draft: &Draft, identity: &Identity) -> Option<Outcome> {
        let request = self.request(draft, identity);
        let now = self.now();
        let outcome = self.run(step(&self.world, &request, now))?;
        self.former.insert(identity.uid.clone(), outcome.status.clone());
        Some(outcome)
    }

    /// Time until the next step, as the operator would wait. One that was cut off comes back after
    /// a restart.
    pub fn wait(&self, outcome: Option<&Outcome>) {
        let time = match outcome {
            Some(outcome) => outcome.recheck.unwrap_or(Duration::from_secs(1)),
            None => Duration::from_secs(4),
        };
        self.pass(time);
    }

    /// Steps until it is Ready or a person must act; None if that never comes.
    pub fn settle(&mut self, draft: &Draft, identity: &Identity) -> Option<Outcome> {
        for _ in 0..MAX_STEPS {
            let outcome = self.step(draft, identity);
            if let Some(outcome) = outcome.as_ref().filter(|o| o.recheck.is_none()) {
                return Some(outcome.clone());
            }
            self.wait(outcome.as_ref());
        }
        None
    }

    /// A step in the name of `adopter`.
    pub fn adopting_step(&self, draft: &Draft, identity: &Identity, adopter: &Adopter) -> Outcome {
        let request = Request { adopter: Some(adopter.clone()), ..self.request(draft, identity) };
        self.run(step(&self.world, &request, self.now())).expect("nobody cuts it off")
    }

    /// Steps until it is Ready, or until the accidents are over and a person must act.
    pub fn settle_or_block(&mut self, draft: &Draft, identity: &Identity) -> Option<Outcome> {
        let mut last = None;
        for _ in 0..MAX_STEPS {
            let outcome = self.step(draft, identity);
            self.wait(outcome.as_ref());
            if outcome.as_ref().is_some_and(|o| o.recheck.is_none()) {
                return outcome;
            }
            last = outcome.or(last);
        }
        last
    }

    /// Removes until nothing is left. Returns what is left if that never comes.
    pub fn delete(&mut self, identity: &Identity) -> Result<(), Option<Removal>> {
        let mut last = None;
        // From here on nobody minds what it loses.
        self.engine.docker().served.remove(&identity.uid);
        for _ in 0..MAX_STEPS {
            if let Some(Ok(removal)) = self.run(remove(&self.world, identity, None)) {
                if removal == Removal::Gone {
                    self.former.remove(&identity.uid);
                    return Ok(());
                }
                last = Some(removal);
            }
            self.pass(Duration::from_secs(5));
        }
        Err(last)
    }
}
