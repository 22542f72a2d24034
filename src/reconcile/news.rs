//! What changed between two reports about a cluster's nodes, in words. `apply` says the same on the
//! terminal as the operator in Events.

use crate::api::{K3sClusterStatus, NodeStatus};

/// Something about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNews {
    /// Its name.
    pub node: String,
    /// Whether the node has become Ready, or else has ceased to be.
    pub ready: bool,
    /// In a sentence.
    pub text: String,
}

/// Nodes that became Ready since `former`, and those that are no longer. A first report is no news:
/// it is of a cluster that is as it was.
pub fn node_news(former: &K3sClusterStatus, status: &K3sClusterStatus) -> Vec<NodeNews> {
    let was_ready = |node: &NodeStatus| former.nodes.iter().any(|n| n.name == node.name && n.ready);
    status
        .nodes
        .iter()
        .filter(|node| !former.nodes.is_empty() && node.ready != was_ready(node))
        .map(|node| {
            let text = match (node.ready, &node.message) {
                (true, _) => format!("node {} is Ready", node.name),
                (false, Some(why)) => format!("node {} is no longer Ready: {why}", node.name),
                (false, None) => format!("node {} is no longer Ready", node.name),
            };
            NodeNews { node: node.name.clone(), ready: node.ready, text }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(nodes: &[(&str, bool)]) -> K3sClusterStatus {
        let node = |(name, ready): &(&str, bool)| NodeStatus {
            name: (*name).into(),
            role: "agent".into(),
            pool: "agent".into(),
            container: String::new(),
            ip: String::new(),
            version: None,
            state: "running".into(),
            ready: *ready,
            message: (!ready).then(|| "the kubelet is silent".into()),
        };
        K3sClusterStatus { nodes: nodes.iter().map(node).collect(), ..K3sClusterStatus::default() }
    }

    #[test]
    fn only_what_changed_is_news() {
        let before = report(&[("a", true), ("b", false), ("c", true)]);
        let after = report(&[("a", true), ("b", true), ("c", false), ("d", false), ("e", true)]);
        let news: Vec<String> = node_news(&before, &after).into_iter().map(|news| news.text).collect();
        assert_eq!(
            news,
            ["node b is Ready", "node c is no longer Ready: the kubelet is silent", "node e is Ready"]
        );
        assert_eq!(node_news(&K3sClusterStatus::default(), &after), []);
    }
}
