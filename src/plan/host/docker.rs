//! How the Docker engine itself is set up.

use super::{Finding, View};

/// An OCI runtime that the engine does not know: Docker refuses the container. A name with a dot
/// and without a slash may be a shim of containerd's, which `docker info` does not list
/// (https://docs.docker.com/engine/daemon/alternative-runtimes/).
pub(super) fn runtime(view: &View<'_>) -> Vec<Finding> {
    let known = &view.engine.runtimes;
    let unknown = |name: &str| {
        let perhaps_a_shim = name.contains('.') && !name.contains('/');
        !(known.is_empty() || perhaps_a_shim || known.iter().any(|k| k == name))
    };
    let asked =
        view.ask.groups.iter().filter_map(|group| group.field("runtime", |node| node.runtime.as_deref()));
    let mut findings: Vec<Finding> = asked
        .filter(|(_, name)| unknown(name))
        .map(|(field, name)| {
            Finding::Block(format!(
                "{field}: Docker knows no runtime {name}: write one of {}, or add it to \"runtimes\" in /etc/docker/daemon.json on the Docker host and reload Docker (sudo systemctl reload docker)",
                known.join(", ")
            ))
        })
        .collect();
    findings.dedup();
    findings
}

/// `docker run --gpus` works with NVIDIA's container toolkit, whose hook Docker looks for on its
/// path; it is listed as a runtime only where it was also configured as one
/// (https://docs.docker.com/engine/containers/gpu/). So its absence is no proof.
pub(super) fn gpus(view: &View<'_>) -> Vec<Finding> {
    if view.engine.runtimes.is_empty() || view.engine.runtimes.iter().any(|name| name.contains("nvidia")) {
        return Vec::new();
    }
    let asked = |node: &'_ crate::api::NodeDefaults| {
        node.resources.as_ref().and_then(|r| r.gpus.as_ref()).map(|_| ())
    };
    let fields = view.ask.groups.iter().filter_map(|group| group.field("resources.gpus", asked));
    let mut findings: Vec<Finding> = fields
        .map(|(field, _)| {
            Finding::Note(format!(
                "{field}: docker info lists no nvidia runtime; if Docker finds no device driver, install nvidia-container-toolkit on the Docker host and run sudo nvidia-ctk runtime configure --runtime=docker, then restart Docker"
            ))
        })
        .collect();
    findings.dedup();
    findings
}

/// Rootless Docker: without cgroup v2 it has no cgroups at all
/// (https://docs.docker.com/engine/security/rootless/), and a kubelet needs them. With it, a kubelet
/// in a user namespace must be told so
/// (https://kubernetes.io/docs/tasks/administer-cluster/kubelet-in-userns/).
pub(super) fn rootless(view: &View<'_>) -> Vec<Finding> {
    if !view.engine.has_security("rootless") {
        return Vec::new();
    }
    if view.engine.cgroup_version == 1 {
        return vec![Finding::Block(
            "Docker runs rootless on cgroup v1, where it has no cgroups to give to nodes: boot the Docker host with systemd.unified_cgroup_hierarchy=1, or use a Docker that runs as root".into(),
        )];
    }
    let mut note = "Docker runs rootless, where k3nest was never tried".to_owned();
    if !view.ask.args_have("KubeletInUserNamespace") {
        note += ": write spec.nodeDefaults.args: [--kubelet-arg=feature-gates=KubeletInUserNamespace=true], without which the kubelet ends";
    }
    vec![Finding::Note(note)]
}

/// Containers in user namespaces: nodes are privileged, which Docker has only outside of them
/// (https://docs.docker.com/engine/security/userns-remap/), and so they are run there.
pub(super) fn user_namespaces(view: &View<'_>) -> Vec<Finding> {
    if !view.engine.has_security("userns") {
        return Vec::new();
    }
    vec![Finding::Note(
        "Docker remaps users (userns-remap), and nodes run without that, as --userns=host does: root in a node is root on the Docker host".into(),
    )]
}

/// Where Docker keeps containers and volumes, on which containerd's overlayfs is to lie. It needs
/// d_type, and neither vfs nor ZFS before 2.2 is a ground for it
/// (https://docs.docker.com/engine/storage/drivers/overlayfs-driver/,
/// https://github.com/k3s-io/k3s/discussions/5287).
pub(super) fn storage(view: &View<'_>) -> Vec<Finding> {
    let engine = view.engine;
    let status = |name: &str| engine.driver_status.get(name).map(String::as_str);
    let native = "write spec.nodeDefaults.args: [--snapshotter=native]";
    let mut findings = Vec::new();
    if engine.driver == "vfs" {
        findings.push("Docker keeps containers with the driver vfs, which copies an image for each: nodes start slowly and take much disk; write \"storage-driver\": \"overlay2\" to /etc/docker/daemon.json and restart Docker (its images are pulled anew)".to_owned());
    }
    if status("Supports d_type") == Some("false") {
        findings.push(format!(
            "the filesystem of {} has no d_type, which overlayfs needs: if nodes fail to start, {native}, or move Docker's data to ext4 or to an XFS made with ftype=1",
            engine.root
        ));
    }
    let backing = status("Backing Filesystem").unwrap_or_default();
    if (engine.driver == "zfs" || backing == "zfs") && !view.ask.args_have("--snapshotter") {
        findings.push(format!(
            "Docker's data lies on ZFS, which takes overlayfs from OpenZFS 2.2 on: if nodes fail to start, {native}"
        ));
    }
    findings.into_iter().map(Finding::Note).collect()
}
