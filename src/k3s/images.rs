//! Images in a node's containerd: the commands to run in the node, and what they say.
//!
//! Only what rancher/k3s documents (https://docs.k3s.io/add-ons/import-images). Never with
//! `--all-platforms`: an image of a Docker daemon on containerd's store lacks other platforms' blobs.

use crate::plan::{NodeImage, NodeImages, image_name};

/// Imports the archive on its standard input, as `docker image save` makes it.
pub const IMPORT_IMAGES: [&str; 7] = ["/bin/k3s", "ctr", "-n", "k8s.io", "images", "import", "-"];

/// Label of the images that the kubelet knows, which containerd's CRI part puts on them.
const MANAGED: &str = "io.cri-containerd.image=managed";

/// Lists the images called one of `names`, which are references of any form or IDs; where there are
/// none, nothing is asked for.
pub fn list_images(names: &[&str]) -> Vec<String> {
    let names = names.iter().map(|name| match name.starts_with("sha256:") {
        true => format!("name=={name}"),
        false => format!("name=={}", image_name(name)),
    });
    list(names)
}

/// Lists every name of the images whose manifest or index has one of `digests`.
pub fn list_names(digests: &[&str]) -> Vec<String> {
    list(digests.iter().map(|digest| format!("target.digest=={digest}")))
}

fn list(filters: impl Iterator<Item = String>) -> Vec<String> {
    let command = ["/bin/k3s", "ctr", "-n", "k8s.io", "images", "ls"];
    command.into_iter().map(str::to_owned).chain(filters).collect()
}

/// What such a list says: reference, type, digest, size, platforms and labels, an image a line.
/// Warnings may stand between.
pub fn parse_images(output: &str) -> NodeImages {
    NodeImages(
        output
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (name, kind, digest) = (words.next()?, words.next()?, words.next()?);
                (kind.starts_with("application/") && digest.starts_with("sha256:")).then(|| NodeImage {
                    name: name.into(),
                    digest: digest.into(),
                    managed: words.any(|labels| labels.split(',').any(|label| label == MANAGED)),
                })
            })
            .collect(),
    )
}

/// Why a command failed: its last words, without what it warned of before.
pub fn last_words(output: &str) -> String {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines().rfind(|line| line.starts_with("ctr: ")).or_else(|| lines().next_back());
    said.unwrap_or("it said nothing").trim_start_matches("ctr: ").to_owned()
}

/// Whether a command failed for want of space.
pub fn is_out_of_space(output: &str) -> bool {
    ["no space left on device", "disk quota exceeded"].iter().any(|words| output.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        assert_eq!(
            list_images(&["app:dev", "sha256:c1"]).join(" "),
            "/bin/k3s ctr -n k8s.io images ls name==docker.io/library/app:dev name==sha256:c1"
        );
        assert_eq!(
            list_names(&["sha256:m1"]).join(" "),
            "/bin/k3s ctr -n k8s.io images ls target.digest==sha256:m1"
        );
    }

    #[test]
    fn a_list_is_read_between_warnings() {
        let output = "time=\"2026-11-23T15:59:00Z\" level=warning msg=\"DEPRECATION: The support for cgroup v1\"
REF                       TYPE                                                 DIGEST     SIZE    PLATFORMS   LABELS
docker.io/library/app:dev application/vnd.docker.distribution.manifest.v2+json sha256:aa11 8.2 MiB linux/amd64 a=b,io.cri-containerd.image=managed
docker.io/library/raw:1   application/vnd.oci.image.index.v1+json              sha256:bb22 1.0 KiB -           -
";
        let image = |name: &str, digest: &str, managed| NodeImage {
            name: name.into(),
            digest: digest.into(),
            managed,
        };
        assert_eq!(
            parse_images(output),
            NodeImages(vec![
                image("docker.io/library/app:dev", "sha256:aa11", true),
                image("docker.io/library/raw:1", "sha256:bb22", false),
            ])
        );
        let empty = "REF TYPE DIGEST SIZE PLATFORMS LABELS \n";
        assert_eq!(parse_images(empty), NodeImages::default());
    }

    #[test]
    fn last_words_are_the_reason() {
        let output =
            "time=\"x\" level=warning msg=\"y\"\nimporting\nctr: write /var/lib/x: no space left on device\n";
        assert_eq!(last_words(output), "write /var/lib/x: no space left on device");
        assert!(is_out_of_space(output));
        assert_eq!(last_words("\n"), "it said nothing");
        assert_eq!(last_words("OCI runtime exec failed\n"), "OCI runtime exec failed");
    }
}
