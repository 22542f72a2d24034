//! cgroups: their version, what they control, and the driver that the image may switch.

use super::{Finding, View};

/// What k3s needs of cgroup v2: without one of these it ends at once, or a kubelet without process
/// limits does (https://github.com/k3s-io/k3s, pkg/cgroups/cgroups_linux.go and
/// pkg/daemons/agent/agent_linux.go).
const NEEDED_V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// What it needs of cgroup v1, by the same files: of the others it only warns.
const NEEDED_V1: [&str; 2] = ["memory", "pids"];

/// The version, and what follows from it. The kubelet of 1.35 and later ends on cgroup v1 unless it
/// is told otherwise, which k3nest does by itself; no version has dropped it yet
/// (https://github.com/kubernetes/enhancements/issues/5573).
pub(super) fn version(view: &View<'_>) -> String {
    let told = view.ask.version().is_some_and(|version| version >= (1, 35, 0));
    match view.engine.cgroup_version {
        1 if told => "cgroup v1 (its nodes get fail-cgroupv1=false, which Kubernetes asks for from 1.35 on; it will drop cgroup v1 in some later version)".into(),
        version => format!("cgroup v{version}"),
    }
}

/// Controllers that k3s cannot do without.
pub(super) fn controllers(view: &View<'_>) -> Vec<Finding> {
    let missing: Vec<&str> = match (view.engine.cgroup_version, &view.machine.v2_controllers) {
        (2, Some(there)) => NEEDED_V2.into_iter().filter(|name| !there.contains(*name)).collect(),
        (1, _) => {
            let off = |name: &&str| view.machine.v1_controllers.get(*name) == Some(&false);
            NEEDED_V1.into_iter().filter(off).collect()
        }
        _ => Vec::new(),
    };
    if missing.is_empty() {
        return Vec::new();
    }
    let mend = if view.engine.cgroup_version == 1 {
        // https://docs.k3s.io/installation/requirements, Raspberry Pi.
        "add cgroup_memory=1 cgroup_enable=memory to the kernel's command line (/boot/firmware/cmdline.txt on a Raspberry Pi), and reboot".to_owned()
    } else if view.engine.has_security("rootless") {
        // https://docs.docker.com/engine/security/rootless/tips/
        "delegate them: write [Service] and Delegate=cpu cpuset io memory pids to /etc/systemd/system/user@.service.d/delegate.conf, then sudo systemctl daemon-reload, and log in again".to_owned()
    } else {
        format!(
            "switch them on: echo '{}' | sudo tee /sys/fs/cgroup/cgroup.subtree_control; if that fails, take cgroup_disable= off the kernel's command line, and reboot",
            missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
        )
    };
    vec![Finding::Block(format!(
        "the Docker host's kernel gives containers no cgroup controller {}, which k3s needs: {mend}",
        missing.join(", ")
    ))]
}

/// With INVOCATION_ID in its environment k3s takes the systemd cgroup driver, which no container
/// has (https://github.com/k3s-io/k3s/issues/5462). The entrypoint of nodes takes it out.
pub(super) fn leaked_driver(view: &View<'_>) -> Vec<Finding> {
    let leaks = view.ask.image_env.iter().any(|name| name == "INVOCATION_ID");
    let note = "the nodes' image sets INVOCATION_ID, which would make k3s take the systemd cgroup driver; its nodes are started without it, but ENV INVOCATION_ID should go from the image";
    if leaks { vec![Finding::Note(note.into())] } else { Vec::new() }
}
