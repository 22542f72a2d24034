//! Resources that were created again, and whose objects in Docker are those of their former uid.

use kube::core::ObjectMeta;
use uuid::Uuid;

use super::{ADOPT_ANNOTATION, K3sCluster};

/// The owner whose objects the annotation of a resource asks to adopt, as it was written; None where
/// it asks for nothing but what is its own.
pub fn adopts(metadata: &ObjectMeta) -> Option<&str> {
    let owner = annotation(metadata)?.split(':').next()?;
    (metadata.uid.as_deref() != Some(owner)).then_some(owner)
}

/// The keeper from whom it is to be taken over, which is written behind the owner and a colon.
pub fn adopts_from(metadata: &ObjectMeta) -> Option<&str> {
    annotation(metadata)?.split_once(':').map(|(_, keeper)| keeper)
}

fn annotation(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(ADOPT_ANNOTATION).map(String::as_str)
}

/// Whether `text` is a uid as labels carry it, so that it can be compared with them.
pub fn is_uid(text: &str) -> bool {
    Uuid::parse_str(text).is_ok_and(|uid| uid.hyphenated().to_string() == text)
}

impl K3sCluster {
    /// The uid by which its objects in Docker are told: the one that it adopts, or its own.
    pub fn docker_uid(&self) -> &str {
        let own = || self.metadata.uid.as_deref().unwrap_or_default();
        adopts(&self.metadata).filter(|uid| is_uid(uid)).unwrap_or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::K3sClusterSpec;

    const OWN: &str = "12345678-9abc-4def-8000-000000000000";
    const FORMER: &str = "87654321-9abc-4def-8000-000000000000";

    #[test]
    fn objects_are_told_by_the_adopted_uid_if_it_is_one() {
        for (written, adopted, expected) in [
            (None, None, OWN),
            (Some(FORMER), Some(FORMER), FORMER),
            (Some(OWN), None, OWN),
            (Some(""), Some(""), OWN),
            (Some("dev"), Some("dev"), OWN),
            (Some("87654321-9abc-4def-8000-000000000000:x"), Some(FORMER), FORMER),
            (Some("12345678-9abc-4def-8000-000000000000:x"), None, OWN),
            (
                Some("{87654321-9abc-4def-8000-000000000000}"),
                Some("{87654321-9abc-4def-8000-000000000000}"),
                OWN,
            ),
            (Some("87654321-9ABC-4DEF-8000-000000000000"), Some("87654321-9ABC-4DEF-8000-000000000000"), OWN),
        ] {
            let mut cluster = K3sCluster::new("dev", K3sClusterSpec::default());
            cluster.metadata.uid = Some(OWN.into());
            cluster.metadata.annotations =
                written.map(|text| [(ADOPT_ANNOTATION.to_owned(), text.to_owned())].into());
            assert_eq!((adopts(&cluster.metadata), cluster.docker_uid()), (adopted, expected), "{written:?}");
        }
    }
}
