//! What the kernel can do: parts that k3s needs, and SELinux.
//!
//! A module that is not loaded is mostly loaded by the kernel itself once somebody needs it, so that
//! alone says nothing. Decided is only what the kernel's own configuration says, or that a kernel
//! which cannot load modules does not have it.

use super::{Finding, Machine, View};
use crate::api::FlannelBackend;

/// Whether a part of the kernel is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    There,
    Missing,
    Unknown,
}

/// A part by its module and its option. Only for modules which are seen below /sys/module when
/// built in, too: those with a version or with parameters.
fn part(machine: &Machine, module: &str, option: &str) -> Part {
    match (machine.modules.contains(module), machine.options.get(option), machine.loads_modules) {
        (true, ..) | (_, Some(true), _) => Part::There,
        (_, Some(false), _) | (_, None, Some(false)) => Part::Missing,
        _ => Part::Unknown,
    }
}

/// What flannel and kube-proxy need (https://docs.k3s.io/networking/basic-network-options; the
/// matches as in k3s's contrib/util/check-config.sh).
pub(super) fn network(view: &View<'_>) -> Vec<Finding> {
    let machine = view.machine;
    let mut findings = Vec::new();
    let backend = match view.ask.flannel() {
        FlannelBackend::Vxlan => Some(("vxlan", "VXLAN")),
        FlannelBackend::WireguardNative => Some(("wireguard", "WIREGUARD")),
        FlannelBackend::HostGw | FlannelBackend::None => None,
    };
    if let Some((module, option)) = backend
        && part(machine, module, option) == Part::Missing
    {
        findings.push(Finding::Block(format!(
            "spec.k3s.flannelBackend: {} needs {module}, and the Docker host's kernel has none: write spec.k3s.flannelBackend: host-gw, which needs nothing (the nodes of a cluster share a network), or use a kernel with CONFIG_{option}",
            view.ask.flannel().as_str()
        )));
    }
    let off = |option: &str| machine.options.get(option) == Some(&false);
    if !view.ask.args_have("proxy-mode=") {
        let matches = ["COMMENT", "CONNTRACK", "STATISTIC"].map(|name| format!("NETFILTER_XT_MATCH_{name}"));
        let missing: Vec<String> =
            matches.iter().filter(|option| off(option)).map(|option| format!("CONFIG_{option}")).collect();
        if !missing.is_empty() {
            findings.push(Finding::Block(format!(
                "the Docker host's kernel is built without {}, and the rules of Services need it: use a kernel that has it, or write spec.nodeDefaults.args: [--kube-proxy-arg=proxy-mode=nftables]",
                missing.join(", ")
            )));
        }
    }
    // Nothing but the kernel's own word for "not there": its directory comes with the module.
    let read = machine.loads_modules.is_some();
    if read && !machine.modules.contains("br_netfilter") {
        let mend = if off("BRIDGE_NETFILTER") || machine.loads_modules == Some(false) {
            "use a kernel with CONFIG_BRIDGE_NETFILTER"
        } else {
            "run on the Docker host: sudo modprobe br_netfilter, and echo br_netfilter | sudo tee /etc/modules-load.d/k3nest.conf to keep it"
        };
        findings.push(Finding::Note(format!(
            "br_netfilter is not loaded: Pods may not reach Services whose Pods are on the same node: {mend}"
        )));
    }
    findings
}

/// k3s's containerd keeps images on overlayfs unless told otherwise
/// (https://docs.k3s.io/cli/agent, --snapshotter).
pub(super) fn overlay(view: &View<'_>) -> Vec<Finding> {
    let known = view.machine.filesystems.contains("overlay");
    let missing = !known && part(view.machine, "overlay", "OVERLAY_FS") == Part::Missing;
    if !missing || view.ask.args_have("--snapshotter") {
        return Vec::new();
    }
    vec![Finding::Block(
        "the Docker host's kernel has no overlayfs, on which k3s keeps images: use a kernel with CONFIG_OVERLAY_FS, or write spec.nodeDefaults.args: [--snapshotter=native]".into(),
    )]
}

/// SELinux: its filesystem is known to the kernel exactly where it is switched on. A privileged
/// container runs as spc_t, which container-selinux defines
/// (https://docs.k3s.io/advanced, SELinux support).
pub(super) fn selinux(view: &View<'_>) -> Vec<Finding> {
    let machine = view.machine;
    if !machine.filesystems.contains("selinuxfs") || machine.enforcing == Some(false) {
        return Vec::new();
    }
    let labelled = machine.label.as_deref().is_some_and(|label| label.contains(":container_t:"));
    let note = if view.engine.has_security("selinux") || labelled {
        "SELinux is on, and Docker labels containers: nodes are privileged and run as spc_t, for which the package container-selinux must be installed; if nodes crash, look for denials: sudo ausearch -m avc -ts recent"
    } else {
        "SELinux is on, and Docker runs without its support: volumes may be refused to nodes; install container-selinux, write \"selinux-enabled\": true to /etc/docker/daemon.json and restart Docker, or look for denials: sudo ausearch -m avc -ts recent"
    };
    vec![Finding::Note(note.into())]
}
