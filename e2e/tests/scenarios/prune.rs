//! What is left of clusters whose host cluster is gone: listed, and removed, and nothing else with it.
//!
//! Always of instances of this scenario's own: others run clusters on this Docker, too.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Finished, Nest, Story,
    docker::{Foreign, docker, labelled},
    host_api::HostApi,
    pick::{self, Scratch},
    within,
};

const KINDS: [&str; 3] = ["container", "volume", "network"];

/// An instance, and objects of owners of it. Dropping it removes them.
struct Instance(String);

/// One owner.
struct Owner<'a> {
    instance: &'a Instance,
    name: String,
    uid: String,
}

impl Instance {
    fn new() -> Self {
        Self(uid())
    }

    fn owner(&self, name: &str) -> Owner<'_> {
        Owner { instance: self, name: name.into(), uid: uid() }
    }

    fn objects(&self) -> Vec<String> {
        let label = [format!("k3nest.dev/instance={}", self.0)];
        KINDS.iter().flat_map(|kind| labelled(kind, &label)).collect()
    }

    fn prune(&self, kubeconfig: &str, more: &[&str]) -> Finished {
        let words = ["prune", "--kubeconfig", kubeconfig, "--instance", &self.0];
        Nest::new().run(&[&words, more].concat())
    }

    /// The list as JSON, by name.
    fn listed(&self, kubeconfig: &str, name: &str) -> Value {
        let text = self.prune(kubeconfig, &["-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("-o json is JSON");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let label = [format!("k3nest.dev/instance={}", self.0)];
        for kind in KINDS {
            for name in labelled(kind, &label) {
                let force: &[&str] = if kind == "network" { &[] } else { &["-f"] };
                docker(&[&[kind, "rm"], force, &[&name]].concat());
            }
        }
    }
}

impl Owner<'_> {
    fn name(&self, what: &str) -> String {
        format!("k3nest-e2e-{}-{what}-{}", self.name, &self.uid[..8])
    }

    fn labels(&self, role: &str) -> Vec<String> {
        [
            ("instance", self.instance.0.as_str()),
            ("owner", &self.uid),
            ("name", &self.name),
            ("namespace", "e2e"),
            ("role", role),
        ]
        .iter()
        .map(|(key, value)| format!("--label=k3nest.dev/{key}={value}"))
        .collect()
    }

    fn make(&self, words: &[&str], role: &str, rest: &[&str]) {
        let labels = self.labels(role);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        docker(&[words, &labels, rest].concat()).ok();
    }

    fn volume(&self, role: &str) {
        self.make(&["volume", "create"], role, &[&self.name(role)]);
    }

    fn record(&self) {
        let record = format!(
            r#"{{"generation":1,"engineId":"e2e","network":{{"name":"{}","subnet":"10.98.0.0/24","owned":true}},"loadBalancer":"10.98.0.2","apiPort":16443,"nodeImage":"e2e","loadBalancerImage":"e2e","initialised":true,"salt":"00"}}"#,
            self.name("network"),
        );
        let record = format!("--label=k3nest.dev/record={record}");
        self.make(&["volume", "create", &record], "record", &[&self.name("record")]);
    }

    fn network(&self) {
        let subnet = format!("--subnet={}.0/24", pick::subnet());
        self.make(&["network", "create", &subnet], "network", &[&self.name("network")]);
    }

    /// One that stands still, in the network `network`.
    fn container(&self, network: &str) {
        let (name, image) = (self.name("server"), crate::harness::docker::TOOLS);
        self.make(&["create", "--network", network, "--name", &name], "server", &[image]);
    }
}

/// Listed by what API servers say, removed by instance, and everybody else's left as it is.
pub fn of_lost_instances() {
    let story = Story::new("prune");
    let (here, lost, young) = (Instance::new(), Instance::new(), Instance::new());
    let scratch = Scratch::new();

    // Given a host cluster that knows one cluster and adopts another, and a third that it knows not
    let (alive, adopted, orphan) = (here.owner("alive"), here.owner("adopted"), here.owner("orphan"));
    alive.record();
    adopted.record();
    orphan.record();
    orphan.volume("data");
    orphan.network();
    orphan.container(&orphan.name("network"));
    let api = HostApi::start(&here.0, &[(&alive.uid, None), (&uid(), Some(&adopted.uid))]);
    let kubeconfig = scratch.file("config", &api.kubeconfig());

    // And objects of others, some with labels that look like ours
    let lookalike =
        [format!("k3nest.dev.example/instance={}", here.0), format!("k3nest.dev/owner={}", orphan.uid)];
    let foreign = foreign_objects(&lookalike);
    let before: Vec<String> = foreign.iter().map(Foreign::facts).collect();

    // Then they are told apart
    for (owner, state, reason) in [
        (&alive, "alive", "K3sCluster e2e/known-0 (context e2e)"),
        (&adopted, "alive", "K3sCluster e2e/known-1 adopts it (context e2e)"),
        (&orphan, "orphaned", "context e2e"),
    ] {
        let row = here.listed(&kubeconfig, &owner.name);
        assert_eq!((&row["state"], &row["owner"]), (&Value::from(state), &Value::from(&*owner.uid)), "{row}");
        assert!(row["reason"].as_str().is_some_and(|text| text.contains(reason)), "{row}");
    }
    let row = here.listed(&kubeconfig, "orphan");
    assert_eq!(
        (&row["containers"], &row["volumes"], &row["networks"]),
        (&1.into(), &2.into(), &1.into()),
        "{row}"
    );
    assert!(row["since"].is_string(), "{row}");
    here.prune(&kubeconfig, &[])
        .exits(0)
        .prints("orphaned")
        .complains("k3nest prune --remove")
        .complains(&format!("k3nest.dev/adopt: {}", orphan.uid));
    let names = here.prune(&kubeconfig, &["-o", "name"]).ok();
    assert!(names.contains(&format!("owner/{}\n", orphan.uid)), "{names}");
    story.tell("alive, adopted and orphaned are told apart");

    // When it is not said that nobody is to be asked, nothing goes
    let all = here.objects();
    here.prune(&kubeconfig, &["--remove"]).exits(2).complains("k3nest prune --remove --yes");
    assert_eq!(here.objects(), all);
    // When it is, the orphan goes
    here.prune(&kubeconfig, &["--remove", "--yes"]).exits(0).complains("alive stays").complains("removed");
    assert_eq!(here.objects(), [adopted.name("record"), alive.name("record")]);
    here.prune(&kubeconfig, &["--remove", "--yes"]).exits(4).complains("what was named is alive");
    assert_eq!(here.objects().len(), 2);
    here.prune(&kubeconfig, &["--remove", "--yes", "-o", "json"]).exits(2).complains("cannot be used with");
    story.tell("the orphan was removed, the others stay");

    in_another_file(&story, &here, &lost, &scratch);
    half_done(&story, &lost, &kubeconfig, &scratch);

    // Given what may be a cluster in the making
    young.owner("young").container("none");
    assert_eq!(young.listed(&kubeconfig, "young")["state"], "in-the-making");
    young.prune(&kubeconfig, &["--remove", "--yes"]).exits(0).complains("may be in the making");
    assert_eq!(young.objects().len(), 1);

    let after: Vec<String> = foreign.iter().map(Foreign::facts).collect();
    assert_eq!(after, before, "objects of others");
    story.tell("what is young stays, and what is not ours is as it was");
}

/// A host cluster whose kubeconfig uses the names of another's is asked, too, and one whose file is not
/// there may know whatever the others do not.
fn in_another_file(story: &Story, here: &Instance, lost: &Instance, scratch: &Scratch) {
    let owner = lost.owner("elsewhere");
    owner.record();
    let (one, two) = (HostApi::start(&here.0, &[]), HostApi::start(&lost.0, &[(&owner.uid, None)]));
    let (one, two) = (scratch.file("one", &one.kubeconfig()), scratch.file("two", &two.kubeconfig()));
    let row = |files: &str| {
        let text =
            Nest::new().env("KUBECONFIG", files).run(&["prune", "--instance", &lost.0, "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("-o json is JSON");
        list["items"][0].clone()
    };
    let known = row(&format!("{one}:{two}"));
    assert_eq!(known["state"], "alive", "{known}");
    assert!(known["reason"].as_str().is_some_and(|text| text.contains(&format!("of {two}"))), "{known}");
    let silent = row(&format!("{one}:{two}-is-not-there"));
    assert_eq!(silent["state"], "unknown", "{silent}");
    docker(&["volume", "rm", &owner.name("record")]).ok();
    story.tell("each kubeconfig is asked by itself");
}

/// A removal that somebody holds up is finished by the next one; an instance that nobody can tell
/// goes only by its name.
fn half_done(story: &Story, lost: &Instance, kubeconfig: &str, scratch: &Scratch) {
    let owner = lost.owner("lost");
    owner.record();
    owner.volume("data");
    owner.network();
    owner.container(&owner.name("network"));
    let network = owner.name("network");
    let guest = Foreign::container(&pick::name("guest"), &["--network", &network], &["sleep"]);

    let dead = "
- {name: dead, context: {cluster: dead, user: e2e}}
clusters:
- {name: dead, cluster: {server: 'http://127.0.0.1:1'}}
";
    let text = std::fs::read_to_string(kubeconfig).expect("it was written");
    let with_dead = scratch.file("dead", &text.replace("\nclusters:\n", dead));
    let row = lost.listed(&with_dead, "lost");
    assert_eq!(row["state"], "unknown", "{row}");
    assert!(row["reason"].as_str().is_some_and(|text| text.contains("context dead: ")), "{row}");
    lost.prune(&with_dead, &[]).exits(0).complains(&format!("--remove --instance {}", lost.0));

    let words = ["--remove", "--yes", "--timeout", "3s"];
    lost.prune(&with_dead, &words).exits(3).complains(&format!("is used by {}", guest.name));
    assert_eq!(lost.objects(), [owner.name("record"), network.clone()]);
    drop(guest);
    within(Duration::from_secs(60), "the removal to be finished", || {
        let again = lost.prune(&with_dead, &words);
        if lost.objects().is_empty() { Ok(()) } else { Err(again.to_string()) }
    });
    lost.prune(&with_dead, &words).exits(0).complains("nothing to remove");
    lost.prune(&with_dead, &[]).exits(0).complains("nothing to prune");
    story.tell("a removal that was held up is finished by the next");
}

/// One of each kind, with labels that are not ours but like them.
fn foreign_objects(labels: &[String]) -> Vec<Foreign> {
    let labels: Vec<String> = labels.iter().map(|label| format!("--label={label}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let name = pick::name("prune-foreign");
    let subnet = format!("--subnet={}.0/24", pick::subnet());
    docker(&[&["volume", "create"], &labels[..], &[&name]].concat()).ok();
    let volume = Foreign { kind: "volume", name: name.clone() };
    docker(&[&["network", "create", &subnet], &labels[..], &[&name]].concat()).ok();
    let network = Foreign { kind: "network", name: name.clone() };
    let image = crate::harness::docker::TOOLS;
    docker(&[&["create", "--network", &name, "--name", &name], &labels[..], &[image]].concat()).ok();
    // Dropped in this order: the container before its network.
    vec![Foreign { kind: "container", name }, volume, network]
}

/// A uid that nobody has.
fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}
