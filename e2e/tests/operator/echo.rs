//! A workload that answers over TCP and UDP, and who asks it from the Docker host.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use crate::harness::{
    docker::TOOLS,
    eventually,
    kubectl::{Kubectl, tools_pod},
};

/// Ports on the nodes that load balancers lead to.
pub const TCP_NODE_PORT: u16 = 30080;
pub const UDP_NODE_PORT: u16 = 30081;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the workload: a Deployment called tcp, a Pod called udp, and a Service in front of each.
pub fn serve(kubectl: &Kubectl) {
    kubectl.apply(&format!(
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
      - {{name: tools, image: {TOOLS}, imagePullPolicy: Never, args: [tcp-echo, ':7000']}}
---
{}{}{}",
        tools_pod("udp", "app: udp", &["udp-echo", ":7000"]),
        service("tcp", "TCP", TCP_NODE_PORT),
        service("udp", "UDP", UDP_NODE_PORT)
    ));
    kubectl.run(&["rollout", "status", "deployment/tcp", "--timeout=60s"]).ok();
    kubectl.pod_is_ready("udp");
}

/// It answers on these ports of the Docker host.
#[track_caller]
pub fn answers(tcp: u16, udp: u16) {
    let answer = eventually("an answer over TCP through the load balancer", || ask_tcp(tcp, "hello"));
    assert!(answer.starts_with("tcp-") && answer.ends_with(": hello"), "{answer}");
    let answer = eventually("an answer over UDP through the load balancer", || ask_udp(udp, "hello"));
    assert_eq!(answer, "udp: hello");
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

/// What answers a line sent to a port of this host.
pub fn ask_tcp(port: u16, line: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
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
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(text.as_bytes(), ("127.0.0.1", port))?;
        let mut answer = [0; 512];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    ask().map_err(|error| error.to_string())
}
