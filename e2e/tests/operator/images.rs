//! The operator keeps images in every node the same as in the Docker daemon, by events alone.

use std::time::Duration;

use crate::{
    harness::{Story, docker::docker, image::Image, within},
    space::Space,
    tenant::Tenant,
};

/// How long a change may take to reach every node on a busy machine. The kubelet lists its images
/// every half a minute, and says so with its next report.
const SOON: Duration = Duration::from_secs(120);

/// An image is missing, comes, gets other content, is taken from a node, and goes.
pub fn are_kept() {
    let story = Story::new("images");
    let space = Space::new("images");
    let tenant = Tenant::new("images", &space);
    let image = Image::named("kept");
    tenant.apply(&format!("agents: {{replicas: 1}}\nimages: [{:?}]", image.0));
    let missing = tenant.becomes("Ready", "False", "ImageMissing", SOON);
    assert!(missing.message.contains("spec.images[0]"), "{missing:?}");
    assert_eq!(tenant.condition("Available").status, "True");

    let first = image.build("one");
    tenant.is_ready();
    is_everywhere(&tenant, &image, &first);
    story.tell("missing in Docker: said; once built, it came into every node");

    let second = image.build("two");
    assert_ne!(first, second);
    is_everywhere(&tenant, &image, &second);
    story.tell("the same tag with other content reached every node");

    let agent = tenant.container("agent");
    is_listed(&tenant, &image);
    docker(&["exec", &agent, "/bin/k3s", "crictl", "rmi", &image.0]).ok();
    is_everywhere(&tenant, &image, &second);
    story.tell("taken by crictl rmi, as the kubelet's garbage collector does: it came back");

    docker(&["rmi", "-f", &image.0]).ok();
    tenant.becomes("Ready", "False", "ImageMissing", SOON);
    image.build("two");
    tenant.becomes("Ready", "True", "Ready", SOON);
    story.tell("gone from Docker: said, until it was back");
    tenant.delete(&story);
}

/// Waits until the agent's kubelet lists the image: its garbage collector takes no other.
#[track_caller]
fn is_listed(tenant: &Tenant, image: &Image) {
    let (kubectl, node) = (tenant.kubectl(), format!("{}-agent-0", tenant.name));
    within(SOON, &format!("{} in the status of Node {node}", image.0), || {
        let images = kubectl.get("node", &node)["status"]["images"].to_string();
        if images.contains(&image.0) { Ok(()) } else { Err(images) }
    });
}

/// Waits until every node has the image under its name, with the ID that Docker knows it by.
#[track_caller]
fn is_everywhere(tenant: &Tenant, image: &Image, id: &str) {
    for node in [tenant.server(), tenant.container("agent")] {
        within(SOON, &format!("{} with ID {id} in {node}", image.0), || {
            let list =
                docker(&["exec", &node, "/bin/k3s", "ctr", "-n", "k8s.io", "images", "ls"]).result()?;
            let digest = |name: &str| {
                let row = list.lines().find(|row| row.split_whitespace().next() == Some(name))?;
                row.split_whitespace().nth(2).map(str::to_owned)
            };
            // The kubelet's containerd names every image by the digest of its configuration, too, which
            // is Docker's ID of it.
            let (by_name, by_id) = (digest(&format!("docker.io/library/{}", image.0)), digest(id));
            if by_name.is_some() && by_name == by_id {
                Ok(())
            } else {
                Err(format!("{by_name:?} {by_id:?}\n{list}"))
            }
        });
    }
}
