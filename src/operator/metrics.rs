//! What Prometheus hears. Every label has a small fixed set of values: reasons are constants, and
//! clusters are counted, never named.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::api::{K3sCluster, Phase};

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// As far as it goes.
    Ok,
    /// The cluster is in trouble, and its report says so.
    Blocked,
    /// Something could not be asked or written.
    Error,
}

impl Result {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Blocked => "blocked",
            Self::Error => "error",
        }
    }
}

const PHASES: [Phase; 6] =
    [Phase::Pending, Phase::Provisioning, Phase::Running, Phase::Updating, Phase::Deleting, Phase::Failed];

/// Counters and gauges of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciliations: IntCounterVec,
    duration: Histogram,
    clusters: IntGaugeVec,
    engine_failures: IntCounterVec,
    engine_connected: IntGauge,
    watch_errors: IntCounterVec,
    imports: IntCounterVec,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// Only for a name that is used twice.
    pub fn new() -> std::result::Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let reconciliations = counter(
            "k3nest_reconciliations_total",
            "Reconciliations, by how they ended and the reason of condition Ready.",
            &["result", "reason"],
        )?;
        let engine_failures = counter(
            "k3nest_engine_failures_total",
            "Calls to Docker that failed, by what was being done.",
            &["operation"],
        )?;
        let watch_errors =
            counter("k3nest_watch_errors_total", "Watches of the host cluster that failed.", &["kind"])?;
        let imports = counter(
            "k3nest_image_imports_total",
            "Images brought into nodes, one for each node, by how it ended.",
            &["result"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new("k3nest_reconciliation_duration_seconds", "How long reconciliations take.")
                .buckets(vec![0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0]),
        )?;
        let clusters = IntGaugeVec::new(Opts::new("k3nest_clusters", "Clusters, by phase."), &["phase"])?;
        let engine_connected =
            IntGauge::new("k3nest_engine_connected", "1 while Docker's events are being received.")?;
        let build_info = IntGaugeVec::new(Opts::new("k3nest_build_info", "Always 1."), &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(clusters.clone()))?;
        registry.register(Box::new(engine_connected.clone()))?;
        registry.register(Box::new(build_info))?;
        Ok(Self {
            registry,
            reconciliations,
            duration,
            clusters,
            engine_failures,
            engine_connected,
            watch_errors,
            imports,
        })
    }

    pub(super) fn count(&self, result: Result, reason: &str) {
        self.reconciliations.with_label_values(&[result.as_str(), reason]).inc();
    }

    pub(super) fn reconciled(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn engine_failed(&self, operation: &str) {
        self.engine_failures.with_label_values(&[operation]).inc();
    }

    /// Counts the nodes that an image came into, and those that it did not.
    pub(super) fn imported(&self, (done, failed): (usize, usize)) {
        for (result, count) in [(Result::Ok, done), (Result::Error, failed)] {
            self.imports.with_label_values(&[result.as_str()]).inc_by(count as u64);
        }
    }

    pub(super) fn watch_failed(&self, kind: &str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    pub(super) fn set_engine_connected(&self, connected: bool) {
        self.engine_connected.set(i64::from(connected));
    }

    /// Everything in Prometheus' text format, with `clusters` counted as they are now.
    ///
    /// # Errors
    /// Where a metric cannot be written down, which does not happen.
    pub fn text<'a>(
        &self,
        clusters: impl Iterator<Item = &'a K3sCluster>,
    ) -> std::result::Result<String, prometheus::Error> {
        let mut counts = PHASES.map(|phase| (phase, 0));
        for cluster in clusters {
            let phase = cluster.status.as_ref().map_or(Phase::Pending, |status| status.phase);
            counts.iter_mut().filter(|(known, _)| *known == phase).for_each(|(_, count)| *count += 1);
        }
        for (phase, count) in counts {
            self.clusters.with_label_values(&[phase.to_string().as_str()]).set(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_counted_also_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.count(Result::Blocked, "InvalidSpec");
        let text = metrics.text([].into_iter()).unwrap();
        assert_eq!(text.matches("k3nest_clusters{phase=").count(), PHASES.len());
        assert!(
            text.contains(r#"k3nest_reconciliations_total{reason="InvalidSpec",result="blocked"} 1"#),
            "{text}"
        );
        assert!(text.contains("k3nest_build_info{version="));
    }

    #[test]
    fn every_metric_is_in_the_readme() {
        let metrics = Metrics::new().unwrap();
        metrics.count(Result::Ok, "Ready");
        metrics.engine_failed("step");
        metrics.watch_failed("Secret");
        metrics.imported((1, 0));
        let text = metrics.text([].into_iter()).unwrap();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), 8, "{names:?}");
        let readme = include_str!("../../README.md");
        for name in names {
            assert!(readme.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
