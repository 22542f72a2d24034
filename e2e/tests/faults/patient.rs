//! Clusters that are hurt, and what tells that they are well again: not their report alone, which may be
//! of before.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    harness::{
        Cluster, Finished, Story,
        docker::{TOOLS, docker, labelled},
        kubectl::Kubectl,
        nest::node_image,
        within,
    },
    tenant::Tenant,
};

/// How long healing may take on a machine that does nothing else.
pub const BOUND: Duration = Duration::from_secs(60);

/// How long the only server of a cluster may take.
pub const ALONE: Duration = Duration::from_secs(90);

/// Bounds are for a machine that does nothing else; this variable multiplies them where others use it.
const FACTOR: &str = "K3NEST_E2E_TIME_FACTOR";

/// `bound`, on the machine as it is said to be.
pub fn patience(bound: Duration) -> Duration {
    let factor = std::env::var(FACTOR).ok().and_then(|text| text.parse::<f64>().ok());
    bound.mul_f64(factor.unwrap_or(1.0).max(1.0))
}

/// What is in the clusters' etcd from the beginning.
const WRITTEN: &str = "written-before";

/// The way to ask a cluster's API. Its certificates outlive every wound.
pub struct Inside {
    kubectl: Kubectl,
    servers: usize,
    agents: usize,
}

impl Inside {
    /// Writes the ConfigMap, and starts as many Pods as there are nodes, one on each.
    pub fn prepare(kubectl: Kubectl, servers: usize, agents: usize) -> Self {
        kubectl.run(&["create", "configmap", WRITTEN, "--from-literal=by=e2e"]).ok();
        kubectl.apply(&workload(servers + agents));
        let inside = Self::of(kubectl, servers, agents);
        within(patience(BOUND), "the workload to run", || inside.works(""));
        inside
    }

    /// To ask a cluster in which nothing was prepared.
    pub fn of(kubectl: Kubectl, servers: usize, agents: usize) -> Self {
        Self { kubectl, servers, agents }
    }

    fn list(&self, kind: &str) -> Result<Vec<Value>, String> {
        let text = self.run(&["get", kind, "-o", "json"]).result()?;
        let list: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    fn run(&self, args: &[&str]) -> Finished {
        // What is asked of a server that is away is asked again, not waited for.
        self.kubectl.run(&[args, &["--request-timeout=5s"]].concat())
    }

    /// Every Node is Ready, and those of `started` say so since their container was started. Every server
    /// votes, where there are several.
    pub fn nodes_are_well(&self, started: &BTreeMap<String, Timestamp>) -> Result<(), String> {
        let nodes = self.list("nodes")?;
        let all = self.servers + self.agents;
        if nodes.len() != all {
            return Err(format!("{} Nodes, not {all}", nodes.len()));
        }
        let condition = |node: &Value, type_: &str| {
            let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["type"] == type_ && c["status"] == "True")
        };
        for node in &nodes {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let Some(ready) = condition(node, "Ready") else { return Err(format!("{name} is not Ready")) };
            let spoken: Option<Timestamp> =
                ready["lastHeartbeatTime"].as_str().and_then(|time| time.parse().ok());
            // Kubernetes writes whole seconds.
            let since = started.get(name).map(|at| at.as_second());
            if spoken.map(Timestamp::as_second) < since {
                return Err(format!("{name} has not spoken since it was started"));
            }
        }
        let voters = nodes.iter().filter(|node| condition(node, "EtcdIsVoter").is_some()).count();
        if self.servers > 1 && voters != self.servers {
            return Err(format!("{voters} servers vote"));
        }
        Ok(())
    }

    /// The ConfigMap is there, and the workload runs on each node: a Pod on `node`, or any where that is
    /// empty, answers.
    pub fn works(&self, node: &str) -> Result<(), String> {
        self.run(&["get", "configmap", WRITTEN]).result()?;
        let all = self.servers + self.agents;
        let pods = self.list("pods")?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let ready: Vec<&Value> = pods.iter().filter(is_ready).collect();
        if ready.len() != all {
            return Err(format!("{} of {all} Pods are Ready", ready.len()));
        }
        let pod = ready.iter().find(|pod| node.is_empty() || pod["spec"]["nodeName"] == node);
        let pod = pod.ok_or_else(|| format!("no Pod on {node}"))?;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let answer = self.kubectl.tools(name, &["tcp-ask", "127.0.0.1:7000", "hello"]).result()?;
        if answer.trim() == format!("{name}: hello") { Ok(()) } else { Err(answer) }
    }

    /// The kubelet of every Node has renewed its lease since `moment`.
    pub fn has_spoken_since(&self, moment: Timestamp) -> Result<(), String> {
        let text = self.run(&["get", "leases", "-n", "kube-node-lease", "-o", "json"]).result()?;
        let list: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let leases = list["items"].as_array().cloned().unwrap_or_default();
        let renewed = |lease: &&Value| {
            let time = lease["spec"]["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            time.is_some_and(|time| time >= moment)
        };
        let (spoken, all) = (leases.iter().filter(renewed).count(), self.servers + self.agents);
        if spoken == all { Ok(()) } else { Err(format!("{spoken} of {all} Nodes have spoken")) }
    }

    /// Name of a Node's member of etcd, which ends in letters of its own.
    #[track_caller]
    pub fn member_of(&self, node: &str) -> String {
        let name = self.kubectl.get("node", node)["metadata"]["annotations"]["etcd.k3s.cattle.io/node-name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(!name.is_empty(), "{node} says no name of its etcd member");
        name
    }
}

/// A cluster of the operator's with something in it.
pub struct Patient<'a> {
    pub tenant: &'a Tenant,
    pub inside: Inside,
    /// Everything it has in Docker while it is well.
    whole: Vec<(&'static str, String)>,
}

impl<'a> Patient<'a> {
    /// Applies the resource and waits until it works.
    pub fn born(story: &Story, tenant: &'a Tenant, servers: usize, agents: usize) -> Self {
        tenant.apply(&spec(servers, agents));
        let took = tenant.is_ready();
        let inside = Inside::prepare(tenant.kubectl(), servers, agents);
        story.tell(&format!("{}: {servers} servers, {agents} agents, Ready after {took:.1?}", tenant.name));
        let whole = without_record(&tenant.all_objects());
        Self { tenant, inside, whole }
    }

    /// Name of a node, `server-0` or such.
    pub fn node(&self, which: &str) -> String {
        format!("{}-{which}", self.tenant.name)
    }

    /// Name of the container of a node, or of the load balancer, `lb`.
    #[track_caller]
    pub fn container(&self, which: &str) -> String {
        container(self.tenant, which)
    }

    /// Hurts the cluster, and waits until it is well again, with the containers `hurt` replaced or started
    /// anew. Tells how long that took. On a machine that is said to be busy it may be longer than it
    /// should, but not often: the story counts.
    #[track_caller]
    pub fn heals(&self, story: &Story, what: &str, hurt: &[&str], wound: impl FnOnce(&Self)) {
        let bound = if self.inside.servers == 1 && hurt.contains(&"server-0") { ALONE } else { BOUND };
        let took = self.heals_within(story, what, hurt, patience(bound), wound);
        if took > bound {
            story.is_slow(format!("{}: {what}: {took:.1?}, not {bound:?}", self.tenant.name));
        }
    }

    /// The same within another time.
    #[track_caller]
    pub fn heals_within(
        &self,
        story: &Story,
        what: &str,
        hurt: &[&str],
        bound: Duration,
        wound: impl FnOnce(&Self),
    ) -> Duration {
        let before: BTreeMap<&str, String> =
            hurt.iter().map(|which| (*which, life(&self.container(which)))).collect();
        wound(self);
        let since = Instant::now();
        within(bound, &format!("{} to be well after: {what}", self.tenant.name), || {
            let mut started = BTreeMap::new();
            for (which, former) in &before {
                let name = self.container(which);
                let life = life(&name);
                if life.is_empty() || life == *former {
                    return Err(format!("{name} was not started again"));
                }
                if *which != "lb" {
                    started.insert(self.node(which), started_at(&life).ok_or(life)?);
                }
            }
            in_place(self.tenant)?;
            self.inside.nodes_are_well(&started)?;
            let condition = self.tenant.condition("Ready");
            if condition.status != "True" {
                return Err(format!("{condition:?}"));
            }
            self.inside.works(started.keys().next().map(String::as_str).unwrap_or_default())?;
            let now = without_record(&self.tenant.all_objects());
            if now == self.whole { Ok(()) } else { Err(format!("{now:?}, not {:?}", self.whole)) }
        });
        let took = since.elapsed();
        story.tell(&format!("{}: {what}: Ready again after {took:.1?}", self.tenant.name));
        took
    }
}

/// The resource's spec. How full the disk of this machine is is no matter here.
pub fn spec(servers: usize, agents: usize) -> String {
    let args = "args: ['--kubelet-arg=eviction-hard=nodefs.available<1%,imagefs.available<1%']";
    format!(
        "servers: {{replicas: {servers}, {args}}}
agents: {{replicas: {agents}, {args}}}
images: [{TOOLS}]
k3s: {{disable: [traefik, servicelb, local-storage, metrics-server]}}"
    )
}

/// A Pod on each node, which stays there while its node is away.
fn workload(nodes: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: work}}
spec:
  replicas: {nodes}
  selector: {{matchLabels: {{app: work}}}}
  template:
    metadata: {{labels: {{app: work}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: work}}}}}}
      containers:
      - {{name: tools, image: {TOOLS}, imagePullPolicy: Never, args: [tcp-echo, ':7000']}}
"
    )
}

/// Name of the container of a node of `cluster`, or of its load balancer, `lb`.
pub fn container(cluster: &Cluster, which: &str) -> String {
    // As k3nest names it: the suffix is that of every object.
    let (_, any) = cluster.all_objects().into_iter().next().unwrap_or_default();
    let suffix = any.rsplit('-').next().unwrap_or_default();
    format!("k3nest-{}-{}-{which}-{suffix}", cluster.namespace, cluster.name)
}

/// Volumes of a node.
pub fn volumes(cluster: &Cluster, which: &str) -> Vec<String> {
    let node = format!("k3nest.dev/node={}-{which}", cluster.name);
    labelled("volume", &cluster.labels().into_iter().chain([node]).collect::<Vec<_>>())
}

/// Id of a container and when it was started; nothing where there is none or it stands still.
pub fn life(container: &str) -> String {
    let format = "{{if .State.Running}}{{.Id}} {{.State.StartedAt}}{{end}}";
    docker(&["container", "inspect", "--format", format, container]).stdout.trim().to_owned()
}

/// When the container with this [`life`] was started.
pub fn started_at(life: &str) -> Option<Timestamp> {
    life.split_whitespace().last()?.parse().ok()
}

/// Takes everything out of the volumes of nodes.
pub fn empty(cluster: &Cluster, nodes: &[&str]) {
    let volumes: Vec<String> = nodes.iter().flat_map(|which| volumes(cluster, which)).collect();
    let mounts = volumes.iter().flat_map(|name| ["-v".to_owned(), format!("{name}:/wiped/{name}")]);
    let mounts: Vec<String> = mounts.collect();
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let image = node_image();
    let run = ["run", "--rm", "--entrypoint", "/bin/sh"];
    // What runs writes while its files are removed: twice, and then without what matters.
    let script = "for i in 1 2; do rm -rf /wiped/*/* /wiped/*/.[!.]*; done 2>/dev/null
for data in /wiped/*-data-*; do [ ! -e $data/k3nest/token ] && [ ! -e $data/server/db/etcd/name ] || exit 1; done";
    docker(&[&run, mounts.as_slice(), &[&image, "-c", script]].concat()).ok();
}

/// Every container runs, and is in the network of its cluster.
pub fn in_place(cluster: &Cluster) -> Result<(), String> {
    let networks = cluster.objects("network");
    let [network] = networks.as_slice() else { return Err(format!("networks {networks:?}")) };
    for name in cluster.objects("container") {
        let format = format!(
            "{{{{.State.Status}}}} {{{{with index .NetworkSettings.Networks {network:?}}}}}{{{{.IPAddress}}}}{{{{end}}}}"
        );
        let found = docker(&["container", "inspect", "--format", &format, &name]).result()?;
        let words: Vec<&str> = found.split_whitespace().collect();
        if words.len() != 2 || words[0] != "running" {
            return Err(format!("{name} is {found:?}"));
        }
    }
    Ok(())
}

/// The objects of a cluster, but for the number of changes that its record has seen.
fn without_record(objects: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let mut kept: Vec<_> = objects.iter().filter(|(_, name)| !name.contains("-record-")).cloned().collect();
    kept.sort();
    kept
}
