//! As much of a host cluster's API server as says which clusters it knows.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use serde_json::{Value, json};

/// The server. It ends with the process.
pub struct HostApi {
    port: u16,
}

impl HostApi {
    /// Starts one whose namespace kube-system has the uid `instance`, and with resources of these uids,
    /// each with what it adopts.
    pub fn start(instance: &str, clusters: &[(&str, Option<&str>)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let metadata = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"});
        let item = |(index, (uid, adopts)): (usize, &(&str, Option<&str>))| {
            let mut item = metadata.clone();
            item["metadata"] = json!({"name": format!("known-{index}"), "namespace": "e2e", "uid": uid});
            if let Some(adopted) = adopts {
                item["metadata"]["annotations"] = json!({"k3nest.dev/adopt": adopted});
            }
            item
        };
        let items: Vec<Value> = clusters.iter().enumerate().map(item).collect();
        let mut namespace = metadata.clone();
        namespace["metadata"] = json!({"name": "kube-system", "uid": instance});
        let list = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items,
        });
        let answers = Arc::new([
            ("/api/v1/namespaces/kube-system", namespace),
            ("/apis/k3nest.dev/v1alpha1/k3sclusters", list),
        ]);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = answers.clone();
                thread::spawn(move || serve(stream, &*answers));
            }
        });
        Self { port }
    }

    /// A kubeconfig with the context e2e.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1
kind: Config
users:
- {{name: e2e, user: {{}}}}
contexts:
- {{name: e2e, context: {{cluster: e2e, user: e2e}}}}
clusters:
- {{name: e2e, cluster: {{server: 'http://127.0.0.1:{}'}}}}
",
            self.port
        )
    }
}

/// Answers requests of one connection until it ends.
fn serve(stream: TcpStream, answers: &[(&str, Value)]) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let (code, body) = match answers.iter().find(|(known, _)| *known == path) {
            Some((_, body)) => ("200 OK", body.to_string()),
            None => ("404 Not Found", json!({"kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404}).to_string()),
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
