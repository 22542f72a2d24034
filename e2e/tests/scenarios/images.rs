//! Images of the Docker daemon in nodes: brought, kept the same, and what is said where they cannot
//! be.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Cluster, Nest, Story,
    docker::{TOOLS, docker, inspected, labelled, remove_container},
    image::Image,
    kubectl::Kubectl,
    nest::nest,
    pick, within,
};

/// Where k3s keeps images (https://docs.k3s.io/cli/agent, data-dir).
const STORE: &str = "/var/lib/rancher/k3s/agent/containerd";

fn spec(images: &[&Image]) -> String {
    let names: Vec<&str> = images.iter().map(|image| image.0.as_str()).collect();
    format!("images: {names:?}")
}

/// Rows of `image list`, as (state, ID in Docker, ID in the node), in the order of the spec.
#[track_caller]
fn list(cluster: &Cluster) -> Vec<(String, Value, Value)> {
    let text = cluster.verb(&["image", "list", "-o", "json"]).ok();
    let list: Value = serde_json::from_str(&text).expect("k3nest prints JSON");
    let rows = list["items"].as_array().expect("a list").iter();
    rows.map(|row| {
        (row["state"].as_str().unwrap_or_default().to_owned(), row["id"].clone(), row["nodeId"].clone())
    })
    .collect()
}

#[track_caller]
fn is(cluster: &Cluster, state: &str, id: &str, node_id: Option<&str>) {
    assert_eq!(list(cluster)[0], (state.to_owned(), json!(id), json!(node_id)));
}

#[track_caller]
fn applied(cluster: &Cluster, image: &Image) -> String {
    cluster.apply(&spec(&[image])).exits(0).complains("importing").complains("Ready at").stderr
}

/// From an image that is not there yet to everything that can make it another one.
pub fn of_a_cluster() {
    let story = Story::new("images");
    let cluster = Cluster::new("images");
    let (image, other) = (Image::named("app"), Image::named("other"));

    missing_in_docker(&story, &cluster, &image, &other);
    let kubectl = cluster.kubectl();
    runs(&kubectl, &image);
    story.tell("a Pod runs from it");

    let (first, second) = (list(&cluster)[0].1.clone(), image.build("two"));
    is(&cluster, "different", &second, first.as_str());
    applied(&cluster, &image);
    is(&cluster, "present", &second, Some(&second));
    story.tell("the same tag with other content was imported");

    let third = other.build("three");
    docker(&["tag", &other.0, &image.0]).ok();
    is(&cluster, "different", &third, Some(&second));
    applied(&cluster, &image);
    is(&cluster, "present", &third, Some(&third));
    cluster.apply(&spec(&[&image])).exits(0).complains("(unchanged)");
    story.tell("the tag moved and was followed; where it is the same, nothing is imported");

    taken_from_the_node(&story, &cluster, &image, &third);
    by_hand(&story, &cluster, &other, &third);
    cluster.delete(&story);
}

fn missing_in_docker(story: &Story, cluster: &Cluster, image: &Image, other: &Image) {
    other.build("other");
    let file = cluster.write(&spec(&[other, image]));
    nest(&["apply", "-f", &file])
        .exits(4)
        .complains(&format!("spec.images[1]: the Docker daemon has no image {}", image.0))
        .complains("docker build, docker pull or docker load");
    assert_eq!(list(cluster).iter().map(|row| &*row.0).collect::<Vec<_>>(), ["present", "not-in-docker"]);
    let found = cluster.verb(&["get", "clusters", "-o", "json"]).ok();
    let found: Value = serde_json::from_str(&found).expect("k3nest prints JSON");
    let status = &found["items"][0]["status"];
    let condition = |type_: &str| {
        let all = status["conditions"].as_array().expect("conditions").iter();
        let found = all.clone().find(|c| c["type"] == type_).expect("the condition");
        (found["status"].clone(), found["reason"].clone())
    };
    assert_eq!(condition("Ready"), (json!("False"), json!("ImageMissing")));
    assert_eq!(condition("Available").0, json!("True"));
    assert_eq!(status["serversReady"], json!("1/1"));
    story.tell("an image that Docker lacks holds nothing up but Ready");

    image.build("one");
    applied(cluster, image);
    assert_eq!(list(cluster)[0].0, "present");
    story.tell("once built, it was imported");
}

fn runs(kubectl: &Kubectl, image: &Image) {
    let pod = crate::harness::kubectl::tools_pod("app", "app: app", &["sleep"]);
    kubectl.apply(&pod.replace(TOOLS, &image.0));
    kubectl.pod_is_ready("app");
    kubectl.run(&["delete", "pod", "app", "--wait=true"]).ok();
}

/// As the kubelet's garbage collector does it, and by a new container with an empty image store.
fn taken_from_the_node(story: &Story, cluster: &Cluster, image: &Image, id: &str) {
    docker(&["exec", &cluster.server(), "/bin/k3s", "crictl", "rmi", &image.0]).ok();
    is(cluster, "missing", id, None);
    applied(cluster, image);
    is(cluster, "present", id, Some(id));
    story.tell("taken by crictl rmi, as the kubelet does: imported again");

    let (server, node) = (cluster.id("server"), cluster.server());
    remove_container(&node);
    cluster.apply(&spec(&[image])).exits(0).complains("Ready at");
    assert_ne!(cluster.id("server"), server);
    is(cluster, "present", id, Some(id));
    story.tell("the node's container was replaced: present");
}

/// `image import` brings what the spec does not name.
fn by_hand(story: &Story, cluster: &Cluster, other: &Image, id: &str) {
    let into = ["--cluster", &cluster.name];
    let import = |image: &str| nest(&[&["image", "import", image], into.as_slice()].concat());
    let node = cluster.node();
    import(&other.0).exits(0).prints(&format!("{} {node}: imported", other.0));
    import(&other.0).exits(0).prints(&format!("{} {node}: there already", other.0));
    import("e2e-nothing:1").exits(4).complains("the Docker daemon has no image e2e-nothing:1");
    nest(&["image", "list", "e2e-nobody"]).exits(4).complains("not found");
    let wide = cluster.verb(&["image", "list", "-o", "wide"]).ok();
    assert!(wide.contains(id) && wide.contains(&node), "{wide}");
    story.tell("image import brings an image by hand, once");
}

/// A killed k3nest leaves nothing that passes for the image; the next one imports it.
pub fn cut_short() {
    let story = Story::new("images_cut_short");
    let cluster = Cluster::new("imgcut");
    let (image, scratch) = (Image::named("cut"), pick::Scratch::new());
    cluster.apply("").exits(0);
    image.fill(&scratch, 150);
    let apply = Nest::new().start(&["apply", "-f", &cluster.write(&spec(&[&image]))]);
    within(Duration::from_secs(60), "the import to be under way", || {
        let processes = docker(&["top", &cluster.server(), "-eo", "pid,args"]);
        if processes.stdout.contains("images import -") { Ok(()) } else { Err(processes.to_string()) }
    });
    apply.signal("KILL");
    apply.wait(Duration::from_secs(10)).exits(128 + 9);
    let after = list(&cluster).remove(0).0;
    story.tell(&format!("killed in the middle of the import: the image is {after}"));
    assert_eq!(after, "missing");
    applied(&cluster, &image);
    assert_eq!(list(&cluster)[0].0, "present");
    story.tell("the next apply imported it");
    cluster.delete(&story);
}

/// A node without space says so, and is right again once the image fits.
pub fn no_space() {
    let story = Story::new("images_no_space");
    let cluster = Cluster::new("imgfull");
    let (image, scratch) = (Image::named("full"), pick::Scratch::new());
    let small = format!("servers: {{volumes: [{{name: small, target: {STORE}}}]}}\n");
    cluster.apply(&small).exits(0);
    shrink(&cluster);
    image.fill(&scratch, 90);
    let spec = format!("{small}{}", spec(&[&image]));
    cluster
        .apply(&spec)
        .exits(4)
        .complains(&format!("{} could not be imported into node {}", image.0, cluster.node()))
        .complains("no space left")
        .complains("make room");
    nest(&["get", "clusters", &cluster.name, "-o", "wide"]).exits(0);
    story.tell("no space left: said with image, node and remedy");
    image.build("small");
    cluster.apply(&spec).exits(0).complains("Ready at");
    assert_eq!(list(&cluster)[0].0, "present");
    story.tell("an image that fits is imported");
    cluster.delete(&story);
}

/// Puts a volume of the same name and labels, but with a bound, in place of the image store's.
fn shrink(cluster: &Cluster) {
    let volumes = labelled("volume", &cluster.labels());
    let volume = volumes.iter().find(|name| name.contains("-vol-small")).expect("the image store's volume");
    let facts = inspected("volume", volume);
    let labels: Vec<String> = facts["Labels"]
        .as_object()
        .expect("labels")
        .iter()
        .map(|(key, value)| format!("--label={key}={}", value.as_str().unwrap_or_default()))
        .collect();
    remove_container(&cluster.server());
    docker(&["volume", "rm", volume]).ok();
    let mut create =
        vec!["volume", "create", "--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs"];
    create.extend(["--opt", "o=size=170m"]);
    create.extend(labels.iter().map(String::as_str));
    create.push(volume);
    docker(&create).ok();
}
