//! What plain-docker.sh needs to know, taken from a cluster that k3nest made before; and whether
//! the containers that it makes are the same.

use std::{fmt::Write, fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Cluster,
    docker::{docker, inspected},
    pick::Scratch,
};

/// What k3nest writes into a node.
const NODE_FILES: [&str; 5] = [
    "/etc/k3nest/entrypoint.sh",
    "/etc/k3nest/node.conf",
    "/etc/k3nest/resolv.conf",
    "/etc/rancher/k3s/config.yaml",
    "/var/lib/rancher/k3s/k3nest/token",
];

/// What k3nest writes into a load balancer.
const BALANCER_FILES: [&str; 2] = ["/etc/nginx/k3nest.conf", "/etc/nginx/k3nest.loaded"];

/// How long the script may take until all containers run.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster that can be made by hand.
pub struct Plain {
    folder: Scratch,
    network: String,
    volumes: Vec<String>,
    containers: Vec<Value>,
    /// The container of the first server.
    pub first_server: String,
    /// Where its load balancer listens on the host.
    pub url: String,
}

impl Plain {
    /// Writes everything down that is to be known of `cluster`, which is Ready.
    pub fn of(cluster: &Cluster) -> Self {
        let folder = Scratch::new();
        let containers: Vec<Value> =
            cluster.objects("container").iter().map(|name| inspected("container", name)).collect();
        let network = cluster.objects("network").remove(0);
        let range = inspected("network", &network)["IPAM"]["Config"][0].clone();
        let balancer = containers.iter().find(|c| role(c) == "loadbalancer").expect("a load balancer");
        let published = &balancer["HostConfig"]["PortBindings"]["6443/tcp"][0];
        let api = format!("{}:{}", text(&published["HostIp"]), text(&published["HostPort"]));
        // Servers first: what the others wait for starts first here, too.
        let mut nodes: Vec<&Value> = containers.iter().filter(|c| role(c) != "loadbalancer").collect();
        nodes.sort_by_key(|c| (role(c) != "server", name(c)));
        let first = nodes.first().expect("a server");

        let path = |name: &str| folder.0.join(name);
        for node in &nodes {
            describe(&path(&host(node)), node, &NODE_FILES);
        }
        describe(&path("balancer"), balancer, &BALANCER_FILES);
        let hosts: Vec<String> = nodes.iter().map(|node| host(node)).collect();
        let env = assignments(&[
            ("NETWORK", &network),
            ("SUBNET", &text(&range["Subnet"])),
            ("GATEWAY", &text(&range["Gateway"])),
            ("IP_RANGE", &text(&range["IPRange"])),
            ("RUNTIME", &runtime(first)),
            ("NODE_IMAGE", &text(&first["Config"]["Image"])),
            ("BALANCER_IMAGE", &text(&balancer["Config"]["Image"])),
            ("API", &api),
            ("NODES", &hosts.join(" ")),
        ]);
        folder.file("cluster.env", &env);
        Self {
            first_server: name(first),
            url: format!("https://{api}"),
            network,
            volumes: cluster.objects("volume"),
            containers,
            folder,
        }
    }

    /// The folder that the script is told of.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Removes what the script made, all of which k3nest's names.
    pub fn remove(&self) {
        let containers: Vec<String> = self.containers.iter().map(name).collect();
        let words = |list: &'_ [String]| list.to_vec();
        let rm = |first: &[&str], names: Vec<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            docker(&[first, &names].concat())
        };
        rm(&["rm", "-f", "-v"], containers);
        docker(&["network", "rm", &self.network]);
        rm(&["volume", "rm", "-f"], words(&self.volumes));
    }

    /// Panics where a container that exists now differs from the one that k3nest made, but for how
    /// the files get in.
    #[track_caller]
    pub fn is_the_same(&self) {
        for ours in &self.containers {
            let theirs = inspected("container", &name(ours));
            let (ours, theirs) = (comparable(ours), comparable(&theirs));
            for (what, value) in ours.as_object().into_iter().flatten() {
                assert_eq!(value, &theirs[what], "{what} of k3nest's (left) and plain Docker's container");
            }
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Whatever a failure has left.
        if !self.containers.is_empty() && std::thread::panicking() {
            self.remove();
        }
    }
}

/// Writes the folder of one container.
fn describe(folder: &Path, container: &Value, files: &[&str]) {
    let files_in = folder.join("files");
    fs::create_dir_all(&files_in).expect("the temporary directory is writable");
    let mut mounts = String::new();
    for mount in container["Mounts"].as_array().into_iter().flatten() {
        let (source, target) = (text(&mount["Name"]), text(&mount["Destination"]));
        writeln!(mounts, "type=volume,src={source},dst={target}").expect("a string takes everything");
    }
    for (index, file) in files.iter().enumerate() {
        let copy = files_in.join(index.to_string());
        docker(&["cp", &format!("{}:{file}", name(container)), &copy.to_string_lossy()]).ok();
        writeln!(mounts, "type=bind,src={},dst={file},readonly", copy.display())
            .expect("a string takes everything");
    }
    let labels = container["Config"]["Labels"].as_object().cloned().unwrap_or_default();
    // Of the image's own labels Docker takes care itself; giving them again changes nothing.
    let labels: String = labels.iter().map(|(key, value)| format!("{key}={}\n", text(value))).collect();
    let place = container["NetworkSettings"]["Networks"].as_object().and_then(|n| n.values().next());
    let address = place.map(|place| text(&place["IPAMConfig"]["IPv4Address"])).unwrap_or_default();
    let env = assignments(&[
        ("NAME", &name(container)),
        ("HOST", &host(container)),
        ("ADDRESS", &address),
        ("ROLE", &role(container)),
    ]);
    for (file, content) in [("container.env", env), ("labels", labels), ("mounts", mounts)] {
        fs::write(folder.join(file), content).expect("the temporary directory is writable");
    }
}

fn assignments(values: &[(&str, &str)]) -> String {
    values.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn name(container: &Value) -> String {
    text(&container["Name"]).trim_start_matches('/').to_owned()
}

fn host(container: &Value) -> String {
    text(&container["Config"]["Hostname"])
}

fn role(container: &Value) -> String {
    text(&container["Config"]["Labels"]["k3nest.dev/role"])
}

/// The runtime, where it is not the engine's default.
fn runtime(container: &Value) -> String {
    let default = docker(&["info", "--format", "{{.DefaultRuntime}}"]).stdout;
    let named = text(&container["HostConfig"]["Runtime"]);
    if named == default.trim() { String::new() } else { named }
}

/// What two containers must have in common to be the same.
fn comparable(container: &Value) -> Value {
    let config = &container["Config"];
    let mut host = container["HostConfig"].clone();
    // Volumes are compared as they are mounted; files come as binds in one and as copies in the other.
    // The others only say where the command line was run.
    for given in ["Mounts", "Binds", "ConsoleSize", "ContainerIDFile"] {
        host.as_object_mut().map(|host| host.remove(given));
    }
    let mut volumes: Vec<Value> = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|mount| mount["Type"] == "volume")
        .map(|mount| json!([mount["Name"], mount["Destination"], mount["RW"], mount["Driver"]]))
        .collect();
    volumes.sort_by_key(ToString::to_string);
    let mut compared = json!({
        "volumes": volumes,
        "network": container["NetworkSettings"]["Networks"].as_object().map(|networks| {
            networks.iter().map(|(name, place)| json!([name, place["IPAMConfig"]])).collect::<Vec<_>>()
        }),
    });
    for key in ["Image", "Entrypoint", "Cmd", "Env", "Hostname", "Labels", "StopSignal", "StopTimeout"] {
        compared[key] = config[key].clone();
    }
    for (key, value) in host.as_object().into_iter().flatten() {
        compared[format!("HostConfig.{key}")] = nothing_as_null(value);
    }
    compared
}

/// An empty list or map asks for as much as none.
fn nothing_as_null(value: &Value) -> Value {
    let empty = value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value == "";
    if empty { Value::Null } else { value.clone() }
}
