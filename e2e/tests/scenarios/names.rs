//! Objects of others, with names like ours or with ours.

use crate::harness::{Cluster, Story, docker::Foreign, nest::nest, pick};

/// What has a name that k3nest needs is named, and survives everything, as do neighbours with
/// similar names.
pub fn taken_names() {
    let story = Story::new("taken_names");
    for kind in ["volume", "network", "container"] {
        let cluster = Cluster::new("taken");
        let file = cluster.write("");
        let plan = nest(&["diff", "-f", &file]).exits(1).stdout;
        let name = wanted(&plan, kind);
        let squatter = make(kind, &name);
        let neighbour = make(kind, &format!("{name}0"));
        let before = (squatter.facts(), neighbour.facts());

        let apply = nest(&["apply", "-f", &file, "--timeout", "30s"]).exits(4);
        let apply = apply.complains(&format!("{kind} {name} exists already")).complains("rename or remove");
        story.tell(apply.stderr.lines().last().unwrap_or_default());
        let wide = nest(&["get", "clusters", &cluster.name, "-o", "wide"]);
        nest(&["delete", &cluster.name]);
        cluster.is_gone();
        assert_eq!((squatter.facts(), neighbour.facts()), before, "{kind} {name} was touched; {wide}");
    }
}

/// The first name of a `kind` that the plan makes and that is no record, which alone has a number
/// in its name.
fn wanted(plan: &str, kind: &str) -> String {
    let verb = if kind == "container" { "run" } else { "create" };
    let start = format!("{verb} {kind} ");
    let name = plan
        .lines()
        .filter_map(|line| line.split_once(&start))
        .filter_map(|(_, rest)| rest.split_whitespace().next())
        .find(|name| !name.contains("-record-"));
    name.unwrap_or_else(|| panic!("no {kind} in\n{plan}")).to_owned()
}

fn make(kind: &str, name: &str) -> Foreign {
    match kind {
        "volume" => Foreign::volume(name),
        "network" => Foreign::network(name, Some(&pick::subnet())),
        _ => Foreign::container(name, &[], &["sleep"]),
    }
}
