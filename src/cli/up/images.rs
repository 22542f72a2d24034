//! Gets the images that clusters need: the one of the nodes and the one of the load balancers.
//!
//! For each, in this order: the real image if it is there; the offline one if it is there; the real
//! one pulled; the offline one built from k3nest's sources. What is there comes before the network,
//! so a machine without a registry does not wait for one at every run; it says so where the
//! offline image is used.

mod build;
mod pull;

use std::path::PathBuf;

use bollard::{Docker, errors::Error as DockerError};

use super::error::{Say, SetupError};
use pull::{Pull, pull};

/// Repository of the node image that is built where no registry answers.
pub const OFFLINE_NODE: &str = "k3nest-offline/node";

/// The load balancer image that is built where no registry answers.
pub const OFFLINE_LOAD_BALANCER: &str = "k3nest-offline/nginx:1";

/// Which images are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlan {
    /// Repository of the real node image, such as rancher/k3s.
    pub node_repository: String,
    /// Version of k3s, such as v1.36.1+k3s1.
    pub version: String,
    /// The real load balancer image, such as nginx:1.29-alpine.
    pub load_balancer: String,
    /// A checkout of k3nest to build offline images from. None: `K3NEST_SOURCE`, else the current
    /// directory if it is one.
    pub source: Option<PathBuf>,
}

/// Which images there are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Repository of the node image; the tag is the version with `-` for `+`.
    pub node: String,
    /// The load balancer image.
    pub load_balancer: String,
}

/// One image: the real reference and the offline one.
struct Choice<'a> {
    /// In a sentence.
    role: &'static str,
    real: String,
    offline: String,
    /// Its script under e2e/.
    script: &'a str,
}

/// Makes both images available on `docker`. Bounded: 20 s to learn that no registry answers, a pull
/// or a build as long as it makes progress.
pub async fn ensure_images(docker: &Docker, want: &ImagePlan, say: &Say<'_>) -> Result<Images, SetupError> {
    let tag = want.version.replace('+', "-");
    let node = Choice {
        role: "node image",
        real: format!("{}:{tag}", want.node_repository),
        offline: format!("{OFFLINE_NODE}:{tag}"),
        script: "e2e/node-image/build.sh",
    };
    let load_balancer = Choice {
        role: "load balancer image",
        real: want.load_balancer.clone(),
        offline: OFFLINE_LOAD_BALANCER.into(),
        script: "e2e/nginx-image/build.sh",
    };
    // Both pulls at once: where no registry answers, the wait is then one and not two.
    let (node_found, load_balancer_found) =
        tokio::join!(find_or_pull(docker, &node, say), find_or_pull(docker, &load_balancer, say));
    // The small one first: where the sources are missing, that is known before the long build.
    let load_balancer = settle(docker, &load_balancer, load_balancer_found?, want, say).await?;
    let node = settle(docker, &node, node_found?, want, say).await?;
    let node = node.strip_suffix(&format!(":{tag}")).unwrap_or(&node).to_owned();
    Ok(Images { node, load_balancer })
}

/// What looking and pulling gave.
enum Found {
    /// This reference is there.
    There(String),
    /// Nothing is, and why the pull failed.
    Nothing(String),
}

async fn find_or_pull(docker: &Docker, choice: &Choice<'_>, say: &Say<'_>) -> Result<Found, SetupError> {
    if is_there(docker, &choice.real).await? {
        return Ok(Found::There(choice.real.clone()));
    }
    if is_there(docker, &choice.offline).await? {
        say(&format!(
            "{}: {} is not here; using the offline image {}",
            choice.role, choice.real, choice.offline
        ));
        return Ok(Found::There(choice.offline.clone()));
    }
    say(&format!("{}: pulling {}", choice.role, choice.real));
    match pull(docker, &choice.real, say).await {
        Pull::Done => Ok(Found::There(choice.real.clone())),
        Pull::Failed(reason) => Ok(Found::Nothing(reason)),
        Pull::NoSuchImage(message) => Err(SetupError::new(
            format!("pull {}", choice.real),
            message,
            "check the version: k3s lists its own at https://github.com/k3s-io/k3s/releases",
        )),
    }
}

/// Takes what was found, or builds the offline image.
async fn settle(
    docker: &Docker,
    choice: &Choice<'_>,
    found: Found,
    want: &ImagePlan,
    say: &Say<'_>,
) -> Result<String, SetupError> {
    let reason = match found {
        Found::There(reference) => return Ok(reference),
        Found::Nothing(reason) => reason,
    };
    say(&format!(
        "{}: no registry gave {} ({reason}): building {}",
        choice.role, choice.real, choice.offline
    ));
    let pull_it = format!(
        "let this machine reach a registry (or `docker load` {}), or run `k3nest up` in a checkout of k3nest (or set K3NEST_SOURCE to one) to build the offline image",
        choice.real
    );
    let Some(source) = build::source(want.source.as_deref()) else {
        let cause = format!(
            "no registry gave it ({reason}), and there are no sources to build the offline image from"
        );
        return Err(SetupError::new(format!("get {}", choice.real), cause, pull_it));
    };
    say(&format!(
        "{}: no registry gave {} ({reason}): building {}",
        choice.role, choice.real, choice.offline
    ));
    let script = source.join(choice.script);
    build::build(&script, &choice.offline, say).await?;
    if is_there(docker, &choice.offline).await? {
        return Ok(choice.offline.clone());
    }
    Err(SetupError::new(
        format!("build {}", choice.offline),
        format!("{} succeeded, but the image is not on the Docker that k3nest uses", script.display()),
        "see that DOCKER_HOST and the current `docker context` name the same Docker",
    ))
}

async fn is_there(docker: &Docker, reference: &str) -> Result<bool, SetupError> {
    match docker.inspect_image(reference).await {
        Ok(_) => Ok(true),
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(e) => Err(SetupError::new(
            format!("look for image {reference}"),
            e,
            "see that Docker runs: `docker version`",
        )),
    }
}
