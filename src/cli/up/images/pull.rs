//! Pulls an image, soon knowing whether a registry answers at all.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bollard::{
    Docker, errors::Error as DockerError, models::CreateImageInfo,
    query_parameters::CreateImageOptionsBuilder,
};
use futures::StreamExt;
use tokio::time::timeout;

use crate::cli::up::error::Say;

/// How long a registry may take to its first word. Docker says nothing before the registry does.
const FIRST_WORD: Duration = Duration::from_secs(20);

/// How long a pull may stand still once it has begun.
const STALL: Duration = Duration::from_secs(120);

/// How often progress is said.
const PROGRESS: Duration = Duration::from_secs(5);

/// What became of a pull.
#[derive(Debug, PartialEq, Eq)]
pub enum Pull {
    /// The image is there.
    Done,
    /// The registry answers, and has no such image.
    NoSuchImage(String),
    /// It failed otherwise.
    Failed(String),
}

/// Pulls `reference`.
pub async fn pull(docker: &Docker, reference: &str, say: &Say<'_>) -> Pull {
    let options = CreateImageOptionsBuilder::default().from_image(reference).build();
    let mut words = docker.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    let mut said = Instant::now();
    let mut bound = FIRST_WORD;
    loop {
        let word = match timeout(bound, words.next()).await {
            Err(_) if bound == FIRST_WORD => {
                return Pull::Failed(format!("no answer within {} s", bound.as_secs()));
            }
            Err(_) => return Pull::Failed(format!("nothing came in for {} s", bound.as_secs())),
            Ok(None) => return Pull::Done,
            Ok(Some(Err(error))) => return failed(error),
            Ok(Some(Ok(word))) => word,
        };
        bound = STALL;
        layers.note(&word);
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            say(&format!("pulling {reference}: {}", layers.words()));
        }
    }
}

fn failed(error: DockerError) -> Pull {
    let message = match error {
        DockerError::DockerResponseServerError { message, .. } => message,
        DockerError::DockerStreamError { error } => error,
        other => other.to_string(),
    };
    let message = message.trim_end().to_owned();
    if means_no_such_image(&message) { Pull::NoSuchImage(message) } else { Pull::Failed(message) }
}

/// Whether Docker's words say that the registry answered and has no such tag. A mirror that refuses
/// or lacks a whole repository is another thing: there the offline image may help.
fn means_no_such_image(message: &str) -> bool {
    message.contains("manifest unknown")
        || (message.contains("manifest for") && message.contains("not found"))
}

/// Layers that were heard of, and how far they are.
#[derive(Default)]
struct Layers(HashMap<String, bool>);

impl Layers {
    fn note(&mut self, word: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&word.id, &word.status) else { return };
        let done = matches!(status.as_str(), "Pull complete" | "Already exists");
        // The first word carries the tag as its id, and is no layer.
        if !status.starts_with("Pulling from") {
            self.0.insert(id.clone(), done);
        }
    }

    fn words(&self) -> String {
        let done = self.0.values().filter(|done| **done).count();
        format!("{done} of {} layers", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_version_is_told_from_a_registry_that_is_away() {
        assert!(means_no_such_image(
            "manifest for rancher/k3s:v9-k3s1 not found: manifest unknown: manifest unknown"
        ));
        for other in [
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
            "pull access denied for rancher/k3s, repository does not exist or may require 'docker login'",
            "toomanyrequests: You have reached your pull rate limit",
        ] {
            assert!(!means_no_such_image(other), "{other}");
        }
    }

    #[test]
    fn layers_are_counted() {
        let mut layers = Layers::default();
        let word = |id: &str, status: &str| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            ..CreateImageInfo::default()
        };
        for (id, status) in [
            ("1.29", "Pulling from library/nginx"),
            ("a", "Already exists"),
            ("b", "Downloading"),
            ("b", "Pull complete"),
            ("c", "Waiting"),
        ] {
            layers.note(&word(id, status));
        }
        assert_eq!(layers.words(), "2 of 3 layers");
    }
}
