//! Health and metrics of the operator, read through the API server as a scraper outside would.

use crate::{
    harness::Story,
    host::{NAMESPACE, host},
};

/// All three answer, and the metrics count clusters by phase.
pub fn health_and_metrics(story: &Story) {
    let pod = host().operator_pod();
    let get = |path: &str| {
        let raw = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/{path}");
        host().kubectl.run(&["get", "--raw", &raw]).ok()
    };
    assert_eq!(get("healthz").trim(), "ok");
    assert_eq!(get("readyz").trim(), "ok");
    let metrics = get("metrics");
    let value = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in:\n{metrics}")).trim().parse::<f64>().expect("a number")
    };
    let running = value("k3nest_clusters{phase=\"Running\"}");
    assert!(running >= 1.0, "{metrics}");
    assert_eq!(value("k3nest_engine_connected"), 1.0);
    assert!(value("k3nest_reconciliation_duration_seconds_count") >= 1.0, "{metrics}");
    for phase in ["Pending", "Provisioning", "Updating", "Deleting", "Failed"] {
        value(&format!("k3nest_clusters{{phase=\"{phase}\"}}"));
    }
    story.tell(&format!("healthy, ready, and {running} clusters counted as Running"));
}
