//! The docker command line: what scenarios look at independently of k3nest's own eyes.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{Finished, projection::is_anonymous, run, within};

/// The workload image: it answers, asks and resolves.
pub const TOOLS: &str = "k3nest-offline/tools:1";

/// Runs docker.
pub fn docker(args: &[&str]) -> Finished {
    run(Command::new("docker").args(args))
}

/// Removes a container as people do. Docker 20.10 fails to remove one that is being read from at that
/// moment ("directory not empty"), as k3nest does when it looks; the next try succeeds. By its id: by
/// then k3nest may have made another one of that name.
#[track_caller]
pub fn remove_container(name: &str) {
    let id = inspected("container", name)["Id"].as_str().expect("an id").to_owned();
    within(Duration::from_secs(20), &format!("container {name} to be removed"), || {
        let removed = docker(&["rm", "-f", "-v", &id]);
        let gone = removed.code == 0 || removed.stderr.contains("No such container");
        if gone { Ok(()) } else { Err(removed.to_string()) }
    });
}

/// What `docker inspect` says of `objects`, as text, to be compared byte for byte.
pub fn inspect(kind: &str, objects: &[&str]) -> String {
    docker(&[&[kind, "inspect"], objects].concat()).ok()
}

/// The same, parsed.
pub fn inspected(kind: &str, object: &str) -> Value {
    let mut list: Vec<Value> = serde_json::from_str(&inspect(kind, &[object])).expect("docker prints JSON");
    list.remove(0)
}

/// Names of the objects of `kind` (container, volume, network) with all of these labels.
pub fn labelled(kind: &str, labels: &[String]) -> Vec<String> {
    let mut args = match kind {
        "container" => vec!["ps", "-a", "--format", "{{.Names}}"],
        kind => vec![kind, "ls", "--format", "{{.Name}}"],
    };
    let filters: Vec<String> = labels.iter().map(|label| format!("label={label}")).collect();
    filters.iter().for_each(|filter| args.extend(["--filter", filter]));
    let mut names: Vec<String> = docker(&args).ok().lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Volumes without a name that no container has. Everything that a test starts takes its own along.
pub fn nameless_volumes() -> BTreeSet<String> {
    let listed = docker(&["volume", "ls", "-q", "--filter", "dangling=true"]).ok();
    listed.lines().filter(|name| is_anonymous(name)).map(str::to_owned).collect()
}

/// Imports a local image into a node's containerd, as k3s documents it
/// (https://docs.k3s.io/add-ons/import-images).
pub fn import_image(image: &str, node: &str) {
    let mut save = Command::new("docker")
        .args(["save", image])
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker can be run");
    let stream = save.stdout.take().expect("piped");
    let imported = Command::new("docker")
        .args(["exec", "-i", node, "/bin/k3s", "ctr", "-n", "k8s.io", "images", "import", "-"])
        .stdin(stream)
        .output()
        .expect("docker can be run");
    let saved = save.wait().expect("a child of ours");
    assert!(
        saved.success() && imported.status.success(),
        "{image} was not imported into {node}: {}",
        String::from_utf8_lossy(&imported.stderr)
    );
}

/// An object that is not k3nest's, removed when dropped.
pub struct Foreign {
    pub kind: &'static str,
    pub name: String,
}

impl Foreign {
    /// A volume.
    pub fn volume(name: &str) -> Self {
        docker(&["volume", "create", "--label", "e2e.foreign=true", name]).ok();
        Self { kind: "volume", name: name.into() }
    }

    /// A network with the range `prefix`.0/24, or without a configured range.
    pub fn network(name: &str, prefix: Option<&str>) -> Self {
        let subnet = prefix.map(|prefix| format!("--subnet={prefix}.0/24"));
        let mut args = vec!["network", "create", "--label", "e2e.foreign=true"];
        args.extend(subnet.as_deref());
        args.push(name);
        docker(&args).ok();
        Self { kind: "network", name: name.into() }
    }

    /// A running container with `options` of docker run before and `command` of the tools after
    /// the image.
    pub fn container(name: &str, options: &[&str], command: &[&str]) -> Self {
        let run = ["run", "-d", "--name", name, "--label", "e2e.foreign=true"];
        docker(&[&run, options, &[TOOLS], command].concat()).ok();
        Self { kind: "container", name: name.into() }
    }

    /// Everything Docker knows about it, but for what changes by itself.
    pub fn facts(&self) -> String {
        inspect(self.kind, &[&self.name])
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let force: &[&str] = if self.kind == "network" { &[] } else { &["-f"] };
        let remove = || docker(&[&[self.kind, "rm"], force, &[&self.name]].concat());
        if std::thread::panicking() {
            remove();
            return;
        }
        // A network lets go of its last container a moment after it is gone.
        within(Duration::from_secs(10), &format!("{} {} to go", self.kind, self.name), || remove().result());
    }
}
