//! What is known of imports from one step to the next: which are under way, which failed and when
//! they may be tried again, and which nodes were seen to have all.
//!
//! It is no durable record: whoever starts without it lists images anew and tries at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::plan::{ImageImport, ImageInNode, image_name};

/// First wait after an import that failed; doubled with each failure in a row.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// What was not touched for so long belongs to a container that is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What is known of imports, of all clusters. Clones share it. Images in nodes are keyed by
/// container id and full name.
#[derive(Clone, Debug, Default)]
pub struct Importer(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: BTreeSet<ImageInNode>,
    failures: BTreeMap<ImageInNode, Failure>,
    complete: BTreeMap<String, (Vec<(String, String)>, Instant)>,
}

#[derive(Debug)]
struct Failure {
    failure: ImportFailure,
    attempts: u32,
    until: Instant,
}

/// Why an image did not get into a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportFailure {
    /// Whether the node has no space left.
    pub out_of_space: bool,
    /// Which image, which node, why, and what to do.
    pub message: String,
}

/// A node that gets an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNode {
    /// Its name.
    pub name: String,
    /// Id of its container.
    pub container: String,
}

/// An image to bring into nodes. It counts as under way as long as it exists.
#[derive(Clone, Debug)]
pub struct Import {
    /// Its reference.
    pub reference: String,
    /// Its ID in Docker.
    pub id: String,
    /// The nodes.
    pub nodes: Vec<ImageNode>,
    _ticket: Arc<Ticket>,
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "importing {} into {}", self.reference, in_words(&self.nodes))
    }
}

/// One node by its name, more by their number.
pub fn in_words(nodes: &[ImageNode]) -> String {
    match nodes {
        [one] => one.name.clone(),
        nodes => format!("{} nodes", nodes.len()),
    }
}

#[derive(Debug)]
struct Ticket {
    importer: Importer,
    keys: Vec<ImageInNode>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.importer.lock();
        state.running.retain(|key| !self.keys.contains(key));
    }
}

impl Importer {
    // A panic elsewhere leaves maps that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the import of `image` is under way. Its nodes are container ids.
    pub(super) fn begin(&self, image: &ImageImport, nodes: &[ImageNode]) -> Import {
        let keys: Vec<ImageInNode> =
            image.nodes.iter().map(|node| (node.clone(), image_name(&image.reference))).collect();
        self.lock().running.extend(keys.iter().cloned());
        Import {
            reference: image.reference.clone(),
            id: image.id.clone(),
            nodes: nodes.iter().filter(|node| image.nodes.contains(&node.container)).cloned().collect(),
            _ticket: Arc::new(Ticket { importer: self.clone(), keys }),
        }
    }

    /// Whether an import into the container is under way.
    pub(super) fn is_busy(&self, container: &str) -> bool {
        self.lock().running.iter().any(|(node, _)| node == container)
    }

    /// Imports that are not to be begun now: under way, or failed a moment ago.
    pub(super) fn held(&self) -> BTreeSet<ImageInNode> {
        let state = self.lock();
        let now = Instant::now();
        let waiting = state.failures.iter().filter(|(_, failed)| failed.until > now).map(|(key, _)| key);
        state.running.iter().chain(waiting).cloned().collect()
    }

    /// Notes how an import into a container ended.
    pub(super) fn note(&self, key: ImageInNode, result: Result<(), ImportFailure>) {
        let now = Instant::now();
        let mut state = self.lock();
        state.failures.retain(|_, failed| now.saturating_duration_since(failed.until) < FORGOTTEN);
        state.complete.retain(|_, (_, since)| now.saturating_duration_since(*since) < FORGOTTEN);
        match result {
            Ok(()) => drop(state.failures.remove(&key)),
            Err(failure) => {
                let attempts = state.failures.get(&key).map_or(0, |failed| failed.attempts);
                let wait = FIRST.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(LONGEST);
                state.failures.insert(key, Failure { failure, attempts: attempts + 1, until: now + wait });
            }
        }
    }

    /// Notes that a container was seen to have `wanted` (full names and IDs), or not to have it.
    pub(super) fn note_complete(&self, container: &str, wanted: &[(String, String)], complete: bool) {
        let mut state = self.lock();
        if complete {
            state.complete.insert(container.to_owned(), (wanted.to_vec(), Instant::now()));
            state.failures.retain(|(node, _), _| node != container);
        } else {
            state.complete.remove(container);
        }
    }

    /// Whether the container was seen to have `wanted`.
    pub(super) fn was_complete(&self, container: &str, wanted: &[(String, String)]) -> bool {
        self.lock().complete.get(container).is_some_and(|(had, _)| had == wanted)
    }

    /// The failures of images that are wanted in `containers`, and when the first may be tried again.
    pub(super) fn failures(
        &self,
        containers: &[ImageNode],
        wanted: &[(String, String)],
    ) -> (Vec<ImportFailure>, Option<Duration>) {
        let state = self.lock();
        let ours = |(node, image): &ImageInNode| {
            containers.iter().any(|c| c.container == *node) && wanted.iter().any(|(name, _)| name == image)
        };
        let found = || state.failures.iter().filter(|(key, _)| ours(key)).map(|(_, failed)| failed);
        let next = found().map(|failed| failed.until.saturating_duration_since(Instant::now())).min();
        (found().map(|failed| failed.failure.clone()).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "docker.io/library/app:dev";

    fn node() -> ImageNode {
        ImageNode { name: "dev-server-0".into(), container: "c1".into() }
    }

    fn key() -> ImageInNode {
        ("c1".into(), APP.into())
    }

    fn import(importer: &Importer) -> Import {
        let want = ImageImport { reference: "app:dev".into(), id: "1".into(), nodes: vec!["c1".into()] };
        importer.begin(&want, &[node()])
    }

    #[test]
    fn an_import_is_under_way_as_long_as_it_exists() {
        let importer = Importer::default();
        let import = import(&importer);
        assert_eq!(import.to_string(), "importing app:dev into dev-server-0");
        let copy = import.clone();
        drop(import);
        assert!(importer.is_busy("c1") && importer.held().contains(&key()));
        drop(copy);
        assert!(!importer.is_busy("c1") && importer.held().is_empty());
    }

    #[test]
    fn a_failure_holds_the_next_try_back_and_success_ends_it() {
        let importer = Importer::default();
        let wanted = [(APP.to_owned(), "1".to_owned())];
        let failure = ImportFailure { out_of_space: true, message: "full".into() };
        for _ in 0..3 {
            importer.note(key(), Err(failure.clone()));
        }
        assert!(importer.held().contains(&key()));
        let (failures, next) = importer.failures(&[node()], &wanted);
        assert_eq!(failures, [failure]);
        assert!(next.is_some_and(|wait| wait > FIRST && wait <= LONGEST), "{next:?}");
        assert!(importer.failures(&[node()], &[]).0.is_empty(), "no longer wanted");

        importer.note(key(), Ok(()));
        assert!(importer.held().is_empty());
        assert!(importer.failures(&[node()], &wanted).0.is_empty());
    }

    #[test]
    fn a_node_is_complete_for_what_it_was_asked_about() {
        let importer = Importer::default();
        let wanted = [(APP.to_owned(), "1".to_owned())];
        importer.note_complete("c1", &wanted, true);
        assert!(importer.was_complete("c1", &wanted));
        assert!(!importer.was_complete("c1", &[(APP.to_owned(), "2".to_owned())]), "the tag moved");
        importer.note_complete("c1", &wanted, false);
        assert!(!importer.was_complete("c1", &wanted));
    }
}
