//! Which images of the Docker daemon have to be brought into which nodes.
//!
//! An image is the one that Docker has if its ID is the same under the same reference. With Docker's
//! own store an ID is the digest of the image's configuration, with containerd's store that of its
//! manifest or index. A node's containerd names every image by its reference, with the digest of
//! manifest or index, and once more by the digest of its configuration: so both are found.

use std::collections::{BTreeMap, BTreeSet};

/// An image that `spec.images` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// Where the specification names it, such as `spec.images[0]`.
    pub field: String,
    /// As it is written there.
    pub reference: String,
    /// The ID that the Docker daemon knows it by; None if it has none of this name.
    pub id: Option<String>,
}

/// An image of a node's containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeImage {
    /// Its reference, or the digest of its configuration.
    pub name: String,
    /// Digest of its manifest or index.
    pub digest: String,
    /// Whether the kubelet's side of containerd has taken note of it.
    pub managed: bool,
}

/// How an image of the Docker daemon is found in a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The same.
    Present,
    /// Another one under the same reference, whose manifest or index has this digest.
    Different(String),
    /// None of this reference.
    Missing,
}

/// What a node's containerd has, as far as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImages(pub Vec<NodeImage>);

impl NodeImages {
    /// Whether `reference` is the image `id` here.
    pub fn presence(&self, reference: &str, id: &str) -> Presence {
        let find = |name: &str| self.0.iter().find(|image| image.name == name);
        let Some(found) = find(&image_name(reference)) else { return Presence::Missing };
        let by_configuration = || find(id).is_some_and(|image| image.digest == found.digest);
        if found.managed && (found.digest == id || by_configuration()) {
            Presence::Present
        } else {
            Presence::Different(found.digest.clone())
        }
    }
}

/// An image to bring into nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageImport {
    /// Its reference.
    pub reference: String,
    /// Its ID in Docker.
    pub id: String,
    /// The nodes that have none or another one.
    pub nodes: Vec<String>,
}

/// What to do about images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePlan {
    /// To bring.
    pub imports: Vec<ImageImport>,
    /// What nodes lack, and Docker, too.
    pub missing: Vec<WantedImage>,
}

/// A node and the name of an image in it.
pub type ImageInNode = (String, String);

/// What to do so that every node of `nodes` has every wanted image; `held` are left alone.
pub fn image_plan(
    wanted: &[WantedImage],
    nodes: &BTreeMap<String, NodeImages>,
    held: &BTreeSet<ImageInNode>,
) -> ImagePlan {
    let mut plan = ImagePlan::default();
    let mut seen = BTreeSet::new();
    for image in wanted {
        let name = image_name(&image.reference);
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(id) = &image.id else {
            plan.missing.push(image.clone());
            continue;
        };
        let lacks = |has: &NodeImages| !matches!(has.presence(&image.reference, id), Presence::Present);
        let lacking: Vec<String> = nodes
            .iter()
            .filter(|(node, has)| lacks(has) && !held.contains(&((*node).clone(), name.clone())))
            .map(|(node, _)| node.clone())
            .collect();
        if !lacking.is_empty() {
            plan.imports.push(ImageImport {
                reference: image.reference.clone(),
                id: id.clone(),
                nodes: lacking,
            });
        }
    }
    plan
}

/// The full name of an image, which containerd and the kubelet know `reference` by
/// (github.com/distribution/reference has the rule).
pub fn image_name(reference: &str) -> String {
    let (host, path) = match reference.split_once('/') {
        Some(("index.docker.io", path)) => ("docker.io", path),
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("docker.io", reference),
    };
    let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
    let last = path.rsplit('/').next().unwrap_or(path);
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{host}/{library}{path}{tag}")
}

/// The full name without its tag.
pub fn image_repository(reference: &str) -> String {
    let name = image_name(reference);
    match name.rfind(':') {
        Some(at) => name[..at].to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_containerd_gives() {
        for (reference, name) in [
            ("app", "docker.io/library/app:latest"),
            ("app:dev", "docker.io/library/app:dev"),
            ("team/app:dev", "docker.io/team/app:dev"),
            ("docker.io/app:dev", "docker.io/library/app:dev"),
            ("index.docker.io/team/app", "docker.io/team/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            ("registry.example.com:5000/app", "registry.example.com:5000/app:latest"),
            ("registry.example.com:5000/a/b/app:1.0", "registry.example.com:5000/a/b/app:1.0"),
        ] {
            assert_eq!(image_name(reference), name);
            assert_eq!(image_name(name), name, "a full name stays");
        }
        assert_eq!(image_repository("app"), "docker.io/library/app");
        assert_eq!(image_repository("host:5000/app:1"), "host:5000/app");
    }

    fn image(name: &str, digest: &str) -> NodeImage {
        NodeImage { name: name.into(), digest: digest.into(), managed: true }
    }

    fn wanted(reference: &str, id: Option<&str>) -> WantedImage {
        WantedImage { field: "spec.images[0]".into(), reference: reference.into(), id: id.map(Into::into) }
    }

    const APP: &str = "docker.io/library/app:dev";

    #[test]
    fn an_image_is_present_by_its_id_under_its_reference() {
        let by_configuration = NodeImages(vec![image(APP, "sha256:m1"), image("sha256:c1", "sha256:m1")]);
        assert_eq!(by_configuration.presence("app:dev", "sha256:c1"), Presence::Present);
        assert_eq!(
            by_configuration.presence("app:dev", "sha256:m1"),
            Presence::Present,
            "containerd's store"
        );
        assert_eq!(
            by_configuration.presence("app:dev", "sha256:c2"),
            Presence::Different("sha256:m1".into())
        );
        assert_eq!(by_configuration.presence("app:other", "sha256:c1"), Presence::Missing);

        // Given the wanted image is there by another reference, while its own is a former one
        let moved = NodeImages(vec![image(APP, "sha256:m1"), image("sha256:c2", "sha256:m2")]);
        assert_eq!(moved.presence("app:dev", "sha256:c2"), Presence::Different("sha256:m1".into()));

        // Given the kubelet does not know of it yet
        let unmanaged = NodeImages(vec![NodeImage { managed: false, ..image(APP, "sha256:m1") }]);
        assert_eq!(unmanaged.presence("app:dev", "sha256:m1"), Presence::Different("sha256:m1".into()));
    }

    #[test]
    fn each_image_goes_where_it_is_missing_or_different() {
        let nodes = BTreeMap::from([
            ("a".to_owned(), NodeImages(vec![image(APP, "sha256:m1")])),
            ("b".to_owned(), NodeImages(vec![image(APP, "sha256:m0")])),
            ("c".to_owned(), NodeImages::default()),
        ]);
        let list = [
            wanted("app:dev", Some("sha256:m1")),
            wanted("docker.io/app:dev", Some("sha256:m1")),
            wanted("gone:1", None),
        ];
        let plan = image_plan(&list, &nodes, &BTreeSet::new());
        let import = |nodes: &[&str]| ImageImport {
            reference: "app:dev".into(),
            id: "sha256:m1".into(),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        };
        assert_eq!(plan.imports, [import(&["b", "c"])]);
        assert_eq!(plan.missing, [wanted("gone:1", None)]);

        let held = BTreeSet::from([("b".to_owned(), APP.to_owned())]);
        assert_eq!(image_plan(&list, &nodes, &held).imports, [import(&["c"])]);
        let held = BTreeSet::from([("b".to_owned(), APP.to_owned()), ("c".to_owned(), APP.to_owned())]);
        assert_eq!(image_plan(&list, &nodes, &held).imports, []);
    }
}
