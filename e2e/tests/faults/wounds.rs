//! Containers, networks and configurations are taken away while the operator looks on.

use std::{panic::resume_unwind, thread, time::Duration};

use super::patient::{Patient, life, patience};
use crate::{
    harness::{Story, docker::docker, proxy::Proxy, within},
    process::Operator,
    space::Space,
    tenant::Tenant,
};

/// Of a cluster of three servers and an agent, and of one of a single server.
pub fn everything_that_can_be_mended() {
    let story = Story::new("wounds");
    let space = Space::new("wounds");
    let operator = Operator::start(&space.name, Proxy::new());
    operator.listens();
    let (three, one) = (Tenant::new("hurt3", &space), Tenant::new("hurt1", &space));
    // Side by side: most of healing is waiting.
    let (one, three) = thread::scope(|scope| {
        let one = scope.spawn(|| {
            let one = Patient::born(&story, &one, 1, 0);
            taken(&story, &one, "server-0", &ALL);
            taken(&story, &one, "lb", &ALL);
            one
        });
        let three = Patient::born(&story, &three, 3, 1);
        for which in ["lb", "agent-0", "server-1"] {
            taken(&story, &three, which, &ALL);
        }
        // The one that has begun the cluster joins it now.
        taken(&story, &three, "server-0", &["kill", "rm -f"]);
        unconfigured(&story, &three);
        (one.join().unwrap_or_else(|cause| resume_unwind(cause)), three)
    });
    // Alone, since the operator is held still.
    homeless(&story, &one, &["server-0"], &operator);
    homeless(&story, &three, &["server-0", "server-1", "server-2", "agent-0"], &operator);
    three.tenant.delete(&story);
    one.tenant.delete(&story);
    operator.ended_by_kills_only();
}

/// What is done to a container with one command.
const ALL: [&str; 3] = ["kill", "rm -f", "network disconnect"];

/// A container is hurt in these ways, one after the other.
fn taken(story: &Story, patient: &Patient, which: &str, ways: &[&str]) {
    let name = patient.container(which);
    let network = patient.tenant.objects("network").remove(0);
    for way in ways {
        let mut command: Vec<&str> = way.split(' ').collect();
        command.extend((*way == "network disconnect").then_some(network.as_str()));
        command.push(&name);
        patient.heals(story, &format!("docker {way} of {which}"), &[which], |_| drop(docker(&command).ok()));
    }
}

/// What the load balancer runs with.
const CONFIGURATION: &str = "/etc/nginx/k3nest.conf";

/// How soon a configuration that is gone is written again, once somebody looks.
const WRITTEN: Duration = Duration::from_secs(15);

/// The load balancer has lost its configuration: it crashes at its next start, or would.
fn unconfigured(story: &Story, patient: &Patient) {
    let name = patient.container("lb");
    let remove = || docker(&["exec", &name, "rm", CONFIGURATION]).ok();
    patient.heals(story, "nginx.conf deleted, docker restart of lb", &["lb"], |_| {
        remove();
        docker(&["restart", "-t", "1", &name]);
    });
    // Docker says nothing of it, and it runs on what it has read.
    let before = life(&name);
    remove();
    let tenant = patient.tenant;
    tenant.run(&["annotate", "k3scluster", &tenant.name, "e2e/look=now"]).ok();
    within(patience(WRITTEN), "the configuration to be written again", || {
        docker(&["cp", &format!("{name}:{CONFIGURATION}"), "-"]).result()
    });
    patient.heals(story, "nginx.conf deleted", &[], |_| ());
    assert_eq!(life(&name), before, "the load balancer runs on");
}

/// The network is gone, and no container is in it.
fn homeless(story: &Story, patient: &Patient, nodes: &[&str], operator: &Operator) {
    let all: Vec<&str> = nodes.iter().copied().chain(["lb"]).collect();
    let network = patient.tenant.objects("network").remove(0);
    patient.heals(story, "docker network rm after docker network disconnect of all", &all, |_| {
        // It would put back the first while the last is taken out, and the network could not go.
        operator.held(|| {
            for which in &all {
                docker(&["network", "disconnect", &network, &patient.container(which)]).ok();
            }
            docker(&["network", "rm", &network]).ok();
        });
    });
}
