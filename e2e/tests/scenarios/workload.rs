//! What runs in a nested cluster is reached from the Docker host, and reaches names.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use crate::harness::{
    Story,
    docker::{Foreign, TOOLS, docker, labelled},
    eventually,
    kubectl::{Kubectl, tools_pod},
    pick,
};

use super::life::Wish;

/// Ports on the nodes that the load balancer leads to.
pub const TCP_NODE_PORT: u16 = 30080;
pub const UDP_NODE_PORT: u16 = 30081;

/// A Deployment behind a Service answers over TCP, a Pod over UDP, and names resolve in Pods.
pub fn answers_and_resolves(story: &Story, wish: &Wish) {
    let cluster = &wish.cluster;
    cluster.import(TOOLS);
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "{}{}{}{}",
        deployment(),
        tools_pod("udp", "app: udp", &["udp-echo", ":7000"]),
        service("tcp", "TCP", TCP_NODE_PORT),
        service("udp", "UDP", UDP_NODE_PORT)
    ));
    let rollout = ["rollout", "status", "deployment/tcp", "--timeout=60s"];
    kubectl.run(&rollout).ok();
    kubectl.pod_is_ready("udp");

    let tcp =
        eventually("an answer over TCP through the load balancer", || ask_tcp(wish.ports[0].0, "hello"));
    assert!(tcp.starts_with("tcp-") && tcp.ends_with(": hello"), "{tcp}");
    let udp =
        eventually("an answer over UDP through the load balancer", || ask_udp(wish.ports[1].0, "hello"));
    assert_eq!(udp, "udp: hello");
    story.tell(&format!("answers on the Docker host: {tcp:?} over TCP, {udp:?} over UDP"));

    names_resolve(story, wish, &kubectl);
}

fn names_resolve(story: &Story, wish: &Wish, kubectl: &Kubectl) {
    let address = |name: &str| {
        eventually(&format!("{name} to resolve in a Pod"), || {
            kubectl.tools("udp", &["resolve", name]).result()
        })
    };
    assert_eq!(address("kubernetes.default.svc.cluster.local").trim(), "10.43.0.1");

    let network = labelled("network", &wish.cluster.labels()).remove(0);
    let neighbour = Foreign::container(&pick::name("neighbour"), &["--network", &network], &["sleep"]);
    let found = address(&neighbour.name);
    let facts = crate::harness::docker::inspected("container", &neighbour.name);
    let expected = facts["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap_or_default();
    assert_eq!(found.trim(), expected, "the address of {}", neighbour.name);

    match outside_name() {
        Some(name) => {
            address(&name);
            story.tell("names resolve in Pods: the cluster's, Docker's, and the host's own");
        }
        None => {
            story.tell("names resolve in Pods: the cluster's and Docker's; the host resolves none to try")
        }
    }
}

/// A name that this host resolves by its own resolver: that of a package source, found where the
/// machine is set up, since an offline one resolves few.
fn outside_name() -> Option<String> {
    let mut texts: Vec<String> = ["GOPROXY", "PIP_INDEX_URL", "http_proxy", "https_proxy", "HTTPS_PROXY"]
        .iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .collect();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut files = vec![
        "/etc/apt/sources.list".into(),
        "/etc/pip.conf".into(),
        format!("{home}/.cargo/config.toml"),
        format!("{home}/.config/go/env"),
    ];
    let parts = ["/etc/apt/sources.list.d", "/etc/apt/apt.conf.d"]
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok());
    files.extend(parts.flatten().flatten().map(|entry| entry.path().to_string_lossy().into_owned()));
    texts.extend(files.iter().filter_map(|file| std::fs::read_to_string(file).ok()));
    let hosts: BTreeSet<String> = texts.iter().flat_map(|text| hosts_in(text)).collect();
    // Docker's default bridge has the host's resolv.conf, and not its /etc/hosts.
    hosts.into_iter().find(|host| docker(&["run", "--rm", TOOLS, "resolve", host]).code == 0)
}

/// Host names of the URLs in `text`.
fn hosts_in(text: &str) -> Vec<String> {
    let rest = text.split("://").skip(1);
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-');
    rest.filter_map(|url| url.split(end).next())
        .filter(|host| host.contains('.') && host.parse::<std::net::IpAddr>().is_err())
        .map(str::to_owned)
        .collect()
}

/// What answers a line sent to a port of this host.
pub fn ask_tcp(port: u16, line: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    };
    match ask() {
        Ok(answer) if !answer.is_empty() => Ok(answer),
        Ok(_) => Err("the connection was closed without an answer".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn ask_udp(port: u16, text: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(text.as_bytes(), ("127.0.0.1", port))?;
        let mut answer = [0; 512];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    ask().map_err(|error| error.to_string())
}

fn deployment() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: tcp}}
spec:
  selector: {{matchLabels: {{app: tcp}}}}
  template:
    metadata: {{labels: {{app: tcp}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: tools, image: {TOOLS}, imagePullPolicy: IfNotPresent, args: [tcp-echo, ':7000']}}
---
"
    )
}

fn service(app: &str, protocol: &str, node_port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {app}}}
spec:
  type: NodePort
  selector: {{app: {app}}}
  ports: [{{port: 7000, nodePort: {node_port}, protocol: {protocol}}}]
---
"
    )
}
