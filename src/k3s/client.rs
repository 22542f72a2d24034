//! The nested API over the network.

use std::{collections::BTreeMap, future::Future, time::Duration};

use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::wait::delete::{self, delete_and_finalize},
};
use serde_json::json;

use super::{
    Access,
    node::{NodeFacts, TAINTS_ANNOTATION, labels_differ, taints_wanted},
};
use crate::api::{FIELD_MANAGER, NodeTaint};

/// How long a look at a nested cluster may take in all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a Node may take to go.
const FORGET_TIMEOUT: Duration = Duration::from_secs(30);

/// The nested clusters' APIs, as far as k3nest needs them. A trait for the sake of tests without
/// clusters.
pub trait ClusterApi: Send + Sync + 'static {
    /// Whether /readyz says ok at `url`, and every Node. An error says in words why it cannot be
    /// told. Bounded to ten seconds.
    ///
    /// Behind `url` a load balancer has the choice of `servers`, one of which may still be coming
    /// up: that many are asked before one that is not ready speaks for all.
    fn probe(
        &self,
        access: &Access,
        url: &str,
        servers: usize,
    ) -> impl Future<Output = Result<Vec<NodeFacts>, String>> + Send;

    /// Makes the cluster forget the Node called `node`: deletes it and its password, and waits until it
    /// is gone, which of a server it is when etcd has removed the member. Fine if there is none.
    /// Bounded to half a minute.
    fn forget_node(
        &self,
        access: &Access,
        url: &str,
        node: &str,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Brings labels and taints of `node` in step, if they are not. Returns whether anything was
    /// written.
    fn keep_node(
        &self,
        access: &Access,
        url: &str,
        node: &NodeFacts,
        labels: &BTreeMap<String, String>,
        taints: &[NodeTaint],
    ) -> impl Future<Output = Result<bool, String>> + Send;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

impl ClusterApi for Network {
    async fn probe(&self, access: &Access, url: &str, servers: usize) -> Result<Vec<NodeFacts>, String> {
        tokio::time::timeout(PROBE_TIMEOUT, probe(access, url, servers)).await.unwrap_or_else(|_| {
            Err(format!("the API at {url} gave no answer within {} s", PROBE_TIMEOUT.as_secs()))
        })
    }

    async fn forget_node(&self, access: &Access, url: &str, node: &str) -> Result<(), String> {
        tokio::time::timeout(FORGET_TIMEOUT, forget(access, url, node)).await.unwrap_or_else(|_| {
            Err(format!(
                "Node {node} was deleted, and is not gone after {} s: no server has removed it from etcd yet",
                FORGET_TIMEOUT.as_secs()
            ))
        })
    }

    async fn keep_node(
        &self,
        access: &Access,
        url: &str,
        node: &NodeFacts,
        labels: &BTreeMap<String, String>,
        taints: &[NodeTaint],
    ) -> Result<bool, String> {
        tokio::time::timeout(PROBE_TIMEOUT, keep(access, url, node, labels, taints)).await.unwrap_or_else(
            |_| Err(format!("Node {} was not written within {} s", node.name, PROBE_TIMEOUT.as_secs())),
        )
    }
}

/// Deletes Node and password. A server's Node carries a finalizer of k3s's until its etcd member is
/// removed; k3s removes the password of a Node that it sees go, but not of one that goes while no
/// server looks (https://docs.k3s.io/cli/server, /architecture).
async fn forget(access: &Access, url: &str, node: &str) -> Result<(), String> {
    let client = access.client(url).map_err(|e| e.to_string())?;
    let failed =
        |what: &str, e: &dyn std::error::Error| format!("{what} could not be deleted: {}", root_cause(e));
    let nodes: Api<Node> = Api::all(client.clone());
    match delete_and_finalize(nodes, node, &DeleteParams::default()).await {
        Ok(()) => {}
        Err(delete::Error::Delete(error)) if is_not_found(&error) => {}
        Err(error) => return Err(failed(&format!("Node {node}"), &error)),
    }
    let name = format!("{node}.node-password.k3s");
    let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
    match secrets.delete(&name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(failed(&format!("Secret kube-system/{name}"), &error)),
        _ => Ok(()),
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

async fn keep(
    access: &Access,
    url: &str,
    node: &NodeFacts,
    labels: &BTreeMap<String, String>,
    taints: &[NodeTaint],
) -> Result<bool, String> {
    let client = access.client(url).map_err(|e| e.to_string())?;
    let nodes: Api<Node> = Api::all(client);
    let name = node.name.clone();
    let failed =
        |what: &str, e: kube::Error| format!("{what} of Node {name} could not be set: {}", root_cause(&e));
    let mut node = node.clone();
    let mut written = false;
    if labels_differ(&node, labels) {
        let applied =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched =
            nodes.patch(&name, &params, &Patch::Apply(applied)).await.map_err(|e| failed("labels", e))?;
        node = NodeFacts::from(patched);
        written = true;
    }
    if let Some(list) = taints_wanted(&node, taints) {
        let ours = serde_json::to_string(taints).map_err(|e| e.to_string())?;
        // With the version that was looked at: taints are one list, and others write it, too.
        let change = json!({
            "metadata": {"annotations": {TAINTS_ANNOTATION: ours}, "resourceVersion": node.resource_version},
            "spec": {"taints": list},
        });
        let params = PatchParams::default();
        nodes.patch(&name, &params, &Patch::Merge(change)).await.map_err(|e| failed("taints", e))?;
        written = true;
    }
    Ok(written)
}

async fn probe(access: &Access, url: &str, servers: usize) -> Result<Vec<NodeFacts>, String> {
    let mut asked = 0;
    let client = loop {
        // Another client is another connection, and so the load balancer's next server.
        let client = access.client(url).map_err(|e| e.to_string())?;
        let request = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
        asked += 1;
        match client.request_text(request).await {
            Ok(_) => break client,
            Err(kube::Error::Api(_)) if asked < servers => {}
            Err(error) => return Err(not_ready(url, &error)),
        }
    };
    let nodes: Api<Node> = Api::all(client);
    let list = nodes
        .list(&ListParams::default())
        .await
        .map_err(|e| format!("the Nodes cannot be listed at {url}: {}", root_cause(&e)))?;
    Ok(list.items.into_iter().map(NodeFacts::from).collect())
}

/// What /readyz says, in a line: it lists every check, a line each, failed ones with `[-]`. No
/// answer at all is what every cluster begins with, since its load balancer is there first.
fn not_ready(url: &str, error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return format!("the API at {url} does not answer yet: {}", root_cause(error));
    };
    let failed: Vec<&str> = status
        .message
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .filter_map(|check| check.split_whitespace().next())
        .map(|check| check.trim_start_matches("poststarthook/"))
        .collect();
    let why = match failed.as_slice() {
        [] => format!("HTTP {}", status.code),
        [one] => format!("waiting for {one}"),
        [one, rest @ ..] => format!("waiting for {one} and {} more", rest.len()),
    };
    format!("the API at {url} is not ready: {why}")
}

/// The innermost reason, without the system's number for it: the outer ones only say that a request
/// failed.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_that_does_not_answer_is_told_from_one_that_is_not_ready() {
        let refused = kube::Error::Service(std::io::Error::from_raw_os_error(111).into());
        assert_eq!(
            not_ready("https://a:1", &refused),
            "the API at https://a:1 does not answer yet: Connection refused"
        );
        let text = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: not finished";
        let waiting =
            kube::Error::Api(kube::core::Status::failure(text, "InternalError").with_code(500).boxed());
        assert_eq!(
            not_ready("https://a:1", &waiting),
            "the API at https://a:1 is not ready: waiting for etcd and 1 more"
        );
    }
}
