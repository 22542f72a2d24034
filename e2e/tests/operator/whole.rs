//! A cluster of three servers and two agents by kubectl, and kubectl scale.

use std::time::Duration;

use crate::{
    harness::{Story, docker::TOOLS, mesh, within},
    space::Space,
    tenant::Tenant,
};

/// The story.
pub fn three_and_two() {
    let story = Story::new("whole");
    let space = Space::new("whole");
    let tenant = Tenant::new("whole", &space);
    tenant.apply(&format!(
        "servers: {{replicas: 3}}
agents: {{replicas: 2, labels: {{tier: work}}}}
images: [{TOOLS}]"
    ));
    let took = tenant.is_ready();
    story.tell(&format!("Ready in {took:.1?}"));
    let table = tenant.run(&["get", "k3c", "--no-headers"]).ok();
    assert!(table.contains("3/3") && table.contains("2/2"), "{table}");
    let kubectl = tenant.kubectl();
    mesh::is_whole(&kubectl, 3, 2);
    mesh::works(&story, &kubectl);
    events(&tenant, 5);

    let servers = tenant.ids("server");
    let scale = ["scale", "k3scluster", &tenant.name, "--replicas=3"];
    tenant.run(&scale).ok();
    within(Duration::from_secs(90), "3/3 agents", || {
        let status = tenant.object()["status"]["agentsReady"].clone();
        if status == "3/3" { Ok(()) } else { Err(status.to_string()) }
    });
    mesh::is_whole(&kubectl, 3, 3);
    assert_eq!(tenant.ids("server"), servers, "scaling agents replaced a server");
    let refused = tenant.run(&["scale", "k3scluster", &tenant.name, "--replicas=1"]);
    assert!(refused.code != 0 && refused.stderr.contains("spec.agents.replicas"), "{refused}");
    story.tell("kubectl scale adds an agent; to take one away is refused, with the field");
    tenant.delete(&story);
}

/// Every node was announced.
fn events(tenant: &Tenant, nodes: usize) {
    within(Duration::from_secs(10), "an Event for each node", || {
        let events = tenant
            .run(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason} {.message}{'\\n'}{end}"])
            .ok();
        let ready = events.lines().filter(|line| line.starts_with("NodeReady ")).count();
        if ready == nodes { Ok(()) } else { Err(events) }
    });
}
