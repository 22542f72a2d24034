//! Images.

use std::{collections::HashMap, time::Instant};

use bollard::{
    auth::DockerCredentials,
    models::CreateImageInfo,
    query_parameters::{CreateImageOptions, CreateImageOptionsBuilder},
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{once, try_unfold},
};

use super::{Docker, failure::Call, limits};
use crate::engine::{EngineError, ImageInfo, Progress, Result};

/// How often a person hears how far a pull is.
const REPORT_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

/// Facts of an image; None if it is not there.
pub(super) async fn inspect(docker: &Docker, reference: &str) -> Result<Option<ImageInfo>> {
    let call = Call::new("inspect", "image", reference);
    match docker
        .call(&call, limits::QUESTION, |client| async move { client.inspect_image(reference).await })
        .await
    {
        Ok(image) => {
            let config = image.config.unwrap_or_default();
            let mut volumes = config.volumes.unwrap_or_default();
            volumes.sort();
            let name = |variable: String| variable.split('=').next().unwrap_or_default().to_owned();
            let env = config.env.unwrap_or_default().into_iter().map(name).collect();
            Ok(Some(ImageInfo { id: image.id.unwrap_or_default(), volumes, env }))
        }
        Err(EngineError::NotFound { .. } | EngineError::ImageUnavailable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pulls an image, for as long as Docker has something to say of it.
///
/// A pull that fails comes as an error object inside a stream that began with status 200, and not
/// every engine's is of the shape bollard looks for: the image has to be there at the end.
pub(super) async fn pull(docker: &Docker, reference: &str, progress: &Progress) -> Result<()> {
    let unavailable = |error| unavailable(reference, error);
    let call = Call::new("pull", "image", reference);
    let client = docker.client().await?;
    let options = CreateImageOptionsBuilder::new().from_image(&with_tag(reference)).build();
    let mut news =
        client.create_image(None::<CreateImageOptions>.or(Some(options)), None, None::<DockerCredentials>);
    let mut layers = Layers::default();
    let mut reported = Instant::now();
    loop {
        match tokio::time::timeout(limits::PULL_SILENCE, news.next()).await {
            Ok(Some(Ok(line))) => {
                layers.hear(line);
                if reported.elapsed() >= REPORT_EVERY {
                    reported = Instant::now();
                    progress(&format!("pulling {reference}{layers}"));
                }
            }
            Ok(Some(Err(error))) => return Err(unavailable(docker.failed(&call, error))),
            Ok(None) => break,
            Err(_) => return Err(call.timed_out(limits::PULL_SILENCE)),
        }
    }
    match inspect(docker, reference).await? {
        Some(_) => Ok(()),
        None => Err(unavailable(call.refused("the pull ended without an error and without the image"))),
    }
}

/// An image as a tar archive, for as long as Docker has something to say.
pub(super) fn export(docker: &Docker, reference: &str) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let (docker, reference) = (docker.clone(), with_tag(reference));
    once(async move {
        let archive = docker.client().await?.export_images(&[reference.as_str()]).boxed();
        Ok(try_unfold(archive, move |mut archive| {
            let (docker, reference) = (docker.clone(), reference.clone());
            async move {
                let call = Call::new("export", "image", &reference);
                match tokio::time::timeout(limits::EXPORT_SILENCE, archive.next()).await {
                    Ok(Some(Ok(chunk))) => Ok(Some((chunk, archive))),
                    Ok(Some(Err(error))) => Err(docker.failed(&call, error)),
                    Ok(None) => Ok(None),
                    Err(_) => Err(call.timed_out(limits::EXPORT_SILENCE)),
                }
            }
        }))
    })
    .try_flatten()
}

/// The reference with a tag: without one, Docker pulls and exports every tag there is.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

/// A failed pull, with a reason that can be read before Docker's words.
fn unavailable(reference: &str, error: EngineError) -> EngineError {
    let (EngineError::Refused { message, .. }
    | EngineError::ImageUnavailable { message, .. }
    | EngineError::Busy { message, .. }
    | EngineError::PortTaken { message, .. }) = error
    else {
        return match error {
            EngineError::NotFound { .. } => unavailable(
                reference,
                EngineError::Refused { what: String::new(), message: "there is no such image".into() },
            ),
            error => error,
        };
    };
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let registry = registry(reference);
    let reason = if says(&["no such host", "server misbehaving", "name resolution", "i/o timeout on lookup"])
    {
        Some(format!("the Docker host cannot resolve the name of the registry {registry}"))
    } else if says(&[
        "connection refused",
        "no route to host",
        "network is unreachable",
        "i/o timeout",
        "tls handshake timeout",
    ]) || says(&["client.timeout exceeded", "deadline exceeded"])
    {
        Some(format!("the Docker host cannot reach the registry {registry}"))
    } else if says(&["toomanyrequests", "too many requests"]) {
        Some(format!("the registry {registry} limits how often this host may pull"))
    } else if says(&["x509", "certificate"]) {
        Some(format!("the Docker host does not trust the certificate of the registry {registry}"))
    } else {
        None
    };
    let message = match reason {
        Some(reason) => format!("{reason} ({message})"),
        None => message,
    };
    EngineError::ImageUnavailable { image: reference.into(), message }
}

/// The registry of a reference; see github.com/distribution/reference for the rule.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// How far the layers are.
#[derive(Default)]
struct Layers(HashMap<String, (i64, i64)>);

impl Layers {
    fn hear(&mut self, line: CreateImageInfo) {
        let (Some(layer), Some(status)) = (line.id, line.status) else { return };
        let detail = line.progress_detail.unwrap_or_default();
        match (status.as_str(), detail.current, detail.total) {
            ("Downloading", Some(current), Some(total)) => {
                self.0.insert(layer, (current, total));
            }
            ("Download complete" | "Pull complete", ..) => {
                self.0.entry(layer).and_modify(|(current, total)| *current = *total);
            }
            _ => {}
        }
    }
}

impl std::fmt::Display for Layers {
    /// Nothing until sizes are known, then ": 12 of 80 MB".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MEGABYTE: i64 = 1_000_000;
        let (current, total) = self.0.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        if total < MEGABYTE {
            Ok(())
        } else {
            write!(f, ": {} of {} MB", current / MEGABYTE, total / MEGABYTE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_is_pulled() {
        assert_eq!(with_tag("rancher/k3s"), "rancher/k3s:latest");
        assert_eq!(with_tag("localhost:5000/k3s"), "localhost:5000/k3s:latest");
        assert_eq!(with_tag("rancher/k3s:v1.33.1-k3s1"), "rancher/k3s:v1.33.1-k3s1");
        assert_eq!(with_tag("rancher/k3s@sha256:00"), "rancher/k3s@sha256:00");
    }

    #[test]
    fn a_failed_pull_has_a_reason_that_can_be_read() {
        let refused =
            |message: &str| EngineError::Refused { what: "pull image x".into(), message: message.into() };
        for (reference, message, reason) in [
            (
                "rancher/k3s:1",
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
                "cannot resolve the name of the registry docker.io",
            ),
            (
                "127.0.0.1:1/x:1",
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                "cannot reach the registry 127.0.0.1:1",
            ),
            (
                "rancher/k3s:nope",
                "manifest for rancher/k3s:nope not found: manifest unknown",
                "manifest unknown",
            ),
        ] {
            let error = unavailable(reference, refused(message)).to_string();
            assert!(error.contains(reason) && error.contains(message), "{error}");
        }
    }

    #[test]
    fn progress_counts_all_layers() {
        let line = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: Some(bollard::models::ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        assert_eq!(layers.to_string(), "");
        layers.hear(line("a", "Downloading", Some(1_000_000), Some(4_000_000)));
        layers.hear(line("b", "Downloading", Some(1_000_000), Some(6_000_000)));
        assert_eq!(layers.to_string(), ": 2 of 10 MB");
        layers.hear(line("a", "Download complete", None, None));
        assert_eq!(layers.to_string(), ": 5 of 10 MB");
    }
}
