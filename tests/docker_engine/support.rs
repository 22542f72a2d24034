//! A cluster of a test's own on the real engine, of which nothing stays behind.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k3nest::{
    api::{Identity, Role, label},
    engine::{Command, Docker, Engine, EngineError, Inside, Report, Result, execute, observe, observe_all},
    plan::{
        Action, BalancerConfig, ContainerKind, ContainerWant, FileWant, Limits, NetworkWant, Observed, Plan,
        Step, VolumeWant,
    },
};

/// An image with busybox as /bin/sh, which the offline images of this repository provide.
pub const IMAGE: &str = "k3nest-offline/tools:1";

pub struct World {
    pub engine: Docker,
    pub identity: Identity,
}

impl World {
    /// A new instance with one cluster, on the engine that the environment names.
    pub async fn new() -> Self {
        let engine = Docker::connect(None).expect("an address of Docker");
        engine.info().await.expect("these tests need Docker");
        let image = engine.inspect_image(IMAGE).await.expect("Docker answers");
        assert!(image.is_some(), "these tests need the image {IMAGE}");
        let identity = Identity {
            instance: format!("test-{}", uuid::Uuid::new_v4()),
            uid: uuid::Uuid::new_v4().to_string(),
            namespace: "tests".into(),
            name: "dev".into(),
        };
        Self { engine, identity }
    }

    /// Another cluster of the same instance, which goes with this one.
    pub fn neighbour(&self) -> Identity {
        Identity { uid: uuid::Uuid::new_v4().to_string(), name: "neighbour".into(), ..self.identity.clone() }
    }

    pub fn name(&self, what: &str) -> String {
        self.identity.object_name(what)
    }

    pub fn volume(&self, what: &str) -> VolumeWant {
        VolumeWant { name: self.name(what), labels: self.identity.labels(Role::Volume) }
    }

    /// A network in a range that is most likely free.
    pub fn network(&self, what: &str) -> NetworkWant {
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let subnet = Ipv4Net::new(Ipv4Addr::new(10, 192 + a % 32, b, 0), 24).unwrap();
        NetworkWant {
            name: self.name(what),
            subnet,
            gateway: host(subnet, 1),
            ip_range: Ipv4Net::new(host(subnet, 128), 25).unwrap(),
            labels: self.identity.labels(Role::Network),
        }
    }

    /// A container that sleeps, at the tenth address of `network`.
    pub fn container(&self, what: &str, network: &NetworkWant) -> ContainerWant {
        let mut labels = self.identity.labels(Role::LoadBalancer);
        labels.insert(label::HASH.into(), "h1".into());
        ContainerWant {
            name: self.name(what),
            kind: ContainerKind::LoadBalancer(BalancerConfig { servers: Vec::new(), forwards: Vec::new() }),
            image: IMAGE.into(),
            hostname: format!("dev-{what}"),
            env: Vec::new(),
            labels,
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            ports: Vec::new(),
            network: network.name.clone(),
            address: host(network.subnet, 10),
            guest: None,
            privileged: false,
            runtime: None,
            limits: Limits::default(),
            ulimits: Vec::new(),
            host_aliases: Vec::new(),
            dns: Vec::new(),
        }
    }

    /// Creates the network and runs the container in it; returns the container's id.
    pub async fn run(&self, network: &NetworkWant, want: &ContainerWant) -> String {
        self.engine.create_network(network).await.unwrap();
        let id = self.engine.create_container(want, &sleep()).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        id
    }

    pub async fn observe(&self) -> Observed {
        observe(&self.engine, &self.identity).await.unwrap()
    }

    pub async fn execute(&self, steps: Vec<(Action, Vec<usize>)>, files: Vec<FileWant>) -> Report {
        let steps = steps.into_iter().map(|(action, after)| Step { action, after }).collect();
        let plan = Plan { steps, ..Plan::default() };
        execute(&self.engine, &self.identity, &plan, &Files(files), &|_: &str| {}).await
    }

    /// Runs a shell command in a container and returns what it wrote.
    pub async fn sh(&self, id: &str, script: &str) -> String {
        let ran = self.engine.exec(id, &["/bin/sh", "-c", script], futures::stream::empty()).await.unwrap();
        assert_eq!(ran.code, 0, "{script}: {}", ran.output);
        ran.output
    }

    /// The one failure of a plan with one step.
    pub async fn fails(&self, action: Action) -> EngineError {
        let report = self.execute(vec![(action, Vec::new())], Vec::new()).await;
        assert_eq!(report.done, 0);
        report.failures.into_iter().next().expect("a failure").error
    }
}

impl Drop for World {
    /// Removes everything of the instance, also after a panic. In a thread of its own, since the
    /// test's runtime may be on its way out.
    fn drop(&mut self) {
        let (engine, instance) = (self.engine.clone(), self.identity.instance.clone());
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for observed in observe_all(&engine, Some(&instance)).await?.into_values() {
                    remove_all(&engine, observed).await?;
                }
                Ok::<_, EngineError>(())
            })
        })
        .join();
        if !std::thread::panicking() {
            cleaned.unwrap().expect("everything is removed");
        }
    }
}

async fn remove_all(engine: &Docker, observed: Observed) -> Result<()> {
    for container in observed.containers {
        engine.remove_container(&container.id).await?;
    }
    for volume in observed.volumes {
        engine.remove_volume(&volume.name).await?;
    }
    for network in observed.networks {
        engine.remove_network(&network.id).await?;
    }
    Ok(())
}

/// The same files for every container, and a long sleep.
struct Files(Vec<FileWant>);

impl Inside for Files {
    async fn forget(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn command(&self, _: &ContainerWant) -> Command {
        sleep()
    }

    async fn files(&self, _: &str, _: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(self.0.clone())
    }
}

/// Sleeps until it is told to end.
pub fn sleep() -> Command {
    let script = "trap 'exit 0' TERM; echo awake; sleep 600 & wait";
    Command { entrypoint: vec!["/bin/sh".into()], args: vec!["-c".into(), script.into()] }
}

/// The `n`th address of a range.
pub fn host(subnet: Ipv4Net, n: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.network().octets();
    Ipv4Addr::new(a, b, c, n)
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}
