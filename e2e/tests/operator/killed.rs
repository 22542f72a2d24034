//! The operator is killed in its Pod, in the middle of creating a cluster: its container starts again,
//! and the cluster ends as one that nobody disturbed.

use std::time::Duration;

use crate::{
    harness::{
        Story,
        command::send_signal,
        docker::docker,
        eventually,
        projection::{self, difference},
        within,
    },
    host::host,
    space::Space,
    tenant::Tenant,
};

/// How long what a killed operator left behind may stay: a container that asks the host something is
/// left to its maker for a while, which may live.
const GRACE: Duration = Duration::from_secs(60);

/// The story.
pub fn in_its_pod() {
    let story = Story::new("killed_in_its_pod");
    let space = Space::new("kill");
    let undisturbed = Tenant::new("calm", &space);
    undisturbed.apply("agents: {replicas: 1}");
    undisturbed.is_ready();
    let expected = projection::of(&undisturbed);
    undisturbed.delete(&story);

    let (restarts, process) = (host().operator_restarts(), process());
    let tenant = Tenant::new("hurt", &space);
    tenant.apply("agents: {replicas: 1}");
    let half =
        within(Duration::from_secs(60), "the first of its volumes", || match tenant.objects("volume") {
            volumes if volumes.len() > 1 => Ok(tenant.all_objects().len()),
            _ => Err(format!("{:?}", tenant.all_objects())),
        });
    send_signal(process, "KILL");
    story.tell(&format!("process {process} of the operator is killed, with {half} objects made"));
    eventually("its container to be started again", || match host().operator_restarts() {
        now if now > restarts => Ok(()),
        now => Err(format!("{now} restarts")),
    });
    let took = tenant.is_ready();
    within(GRACE, "the same as of an undisturbed one", || {
        let differences = difference(&projection::of(&tenant), &expected);
        if differences.is_empty() { Ok(()) } else { Err(format!("{differences:#?}")) }
    });
    story.tell(&format!("started again by its kubelet, and the cluster is Ready {took:.1?} later"));
    tenant.delete(&story);
}

/// The operator's process, as the Docker host knows it: the only one in the host cluster's server that
/// runs k3nest as an operator.
fn process() -> u32 {
    let table = docker(&["top", &host().server(), "-eo", "pid,args"]).ok();
    let mut found = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let (program, verb) = (words.next()?, words.next()?);
        (program.ends_with("k3nest") && verb == "operator").then_some(pid)
    });
    let pid = found.next().unwrap_or_else(|| panic!("no operator among\n{table}"));
    assert_eq!(found.next(), None, "{table}");
    pid
}
