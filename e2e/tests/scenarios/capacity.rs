//! What nodes say they have is what they have, and what they may use.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::harness::{
    Cluster, Story,
    docker::{TOOLS, docker, import_image, inspected},
    eventually,
    kubectl::Kubectl,
    within,
};

/// How long a busy loop is watched at a time.
const WATCHED: Duration = Duration::from_secs(5);

/// The quota of the agent, in cores.
const QUOTA: f64 = 0.5;

/// Capacity in the Node's status, a Pod that takes too much memory, and one that takes all cpu.
pub fn capacity() {
    let story = Story::new("capacity");
    let (cluster, neighbour) = (Cluster::new("capacity"), Cluster::new("neighbour"));
    neighbour.apply("").exits(0);
    cluster
        .apply(
            "servers: {resources: {cpu: 1, memory: 1Gi}}
agents: {replicas: 1, resources: {cpu: 500m, memory: 1Gi}}",
        )
        .exits(0);
    let kubectl = cluster.kubectl();
    for node in [cluster.node(), format!("{}-agent-0", cluster.name)] {
        let described = kubectl.run(&["describe", "node", &node]).ok();
        let capacity = described.split("Capacity:").nth(1).and_then(|rest| rest.split("Allocatable:").next());
        let capacity: Vec<&str> = capacity.unwrap_or_default().split_whitespace().collect();
        assert!(capacity.windows(2).any(|w| w == ["cpu:", "1"]), "{node}: {capacity:?}");
        assert!(capacity.windows(2).any(|w| w == ["memory:", "1Gi"]), "{node}: {capacity:?}");
    }
    story.tell("kubectl describe node says 1 CPU and 1 GiB, for 1 as for 500m");

    import_image(TOOLS, &cluster.container("agent"));
    memory(&story, &cluster, &neighbour, &kubectl);
    cpu(&story, &cluster, &kubectl);
    cluster.delete(&story);
    neighbour.delete(&story);
}

fn memory(story: &Story, cluster: &Cluster, neighbour: &Cluster, kubectl: &Kubectl) {
    let pids = |cluster: &Cluster| pid_of(&cluster.server());
    let before = (pids(cluster), pids(neighbour), pid_of(&cluster.container("agent")));
    kubectl.apply(&pod("greedy", &["fill", &(2u64 << 30).to_string()], &cluster.name));
    let killed = within(Duration::from_secs(90), "the Pod that takes 2 GiB to be killed", || {
        let status = kubectl.get("pod", "greedy")["status"]["containerStatuses"][0].clone();
        let ends = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
        let reason = ends.iter().find_map(|end| end["reason"].as_str());
        match reason {
            Some(reason @ ("OOMKilled" | "Error")) if ends.iter().any(|end| end["exitCode"] == 137) => {
                Ok(reason.to_owned())
            }
            _ => Err(status.to_string()),
        }
    });
    kubectl.run(&["delete", "pod", "greedy", "--wait=false"]).ok();
    for cluster in [cluster, neighbour] {
        eventually("every node to be Ready", || {
            let nodes = cluster.kubectl().run(&["get", "nodes", "--no-headers"]).result()?;
            if nodes.contains("NotReady") { Err(nodes) } else { Ok(()) }
        });
    }
    let after = (pids(cluster), pids(neighbour), pid_of(&cluster.container("agent")));
    assert_eq!(before, after, "a node was restarted");
    story.tell(&format!(
        "a Pod of twice its node's memory: {killed}; every node stayed, the neighbour's, too"
    ));
}

fn cpu(story: &Story, cluster: &Cluster, kubectl: &Kubectl) {
    kubectl.apply(&pod("busy", &["spin"], &cluster.name));
    kubectl.pod_is_ready("busy");
    let used = Meter::of(&cluster.container("agent"));
    // Never more than the quota. All of it, too, as soon as other scenarios leave it that much.
    let cores = within(Duration::from_secs(180), "a busy loop to use its whole quota", || {
        let (begun, before) = (Instant::now(), used.seconds());
        std::thread::sleep(WATCHED);
        let cores = (used.seconds() - before) / begun.elapsed().as_secs_f64();
        assert!(cores < QUOTA * 1.1, "a busy loop used {cores:.3} cores of {QUOTA}");
        if cores > QUOTA * 0.9 { Ok(cores) } else { Err(format!("{cores:.3} cores of {QUOTA}")) }
    });
    story.tell(&format!("a busy loop used {cores:.3} cores of {QUOTA}"));
}

fn pod(name: &str, args: &[&str], cluster: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  nodeName: {cluster}-agent-0
  containers:
  - {{name: tools, image: {TOOLS}, imagePullPolicy: Never, args: {args:?}}}
"
    )
}

fn pid_of(container: &str) -> String {
    inspected("container", container)["State"]["Pid"].to_string()
}

/// The processor time that a container has used, as the kernel counts it.
struct Meter {
    file: String,
}

impl Meter {
    fn of(container: &str) -> Self {
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", container]).ok();
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("it runs");
        let line = |controller: &str| {
            let found = groups.lines().find(|line| line.split(':').nth(1) == Some(controller));
            found.and_then(|line| line.splitn(3, ':').nth(2)).map(str::to_owned)
        };
        let one = ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"].into_iter().find_map(|c| Some((c, line(c)?)));
        let file = match one {
            Some((controller, path)) => format!("/sys/fs/cgroup/{controller}{path}/cpuacct.usage"),
            None => format!("/sys/fs/cgroup{}/cpu.stat", line("").expect("a cgroup")),
        };
        // k3s on cgroup v1 is in the container's own group; on v2 it moves to one below it.
        let file = file.replace("/init/", "/");
        Self { file }
    }

    fn seconds(&self) -> f64 {
        let text = fs::read_to_string(&self.file).unwrap_or_else(|e| panic!("{}: {e}", self.file));
        match text.lines().find_map(|line| line.strip_prefix("usage_usec ")) {
            Some(micros) => micros.trim().parse::<f64>().expect("a number") / 1e6,
            None => text.trim().parse::<f64>().expect("a number") / 1e9,
        }
    }
}
