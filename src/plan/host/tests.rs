use serde_json::{Value, json};

use super::*;
use crate::{
    api::{Identity, K3sClusterSpec},
    engine::engine_info,
    plan::{Input, InternalAccess, Settings, Values},
};

/// A Docker host from testdata.
macro_rules! host {
    ($name:literal) => {
        (
            include_str!(concat!("testdata/", $name, "/info.json")),
            include_str!(concat!("testdata/", $name, "/probe.txt")),
        )
    };
}

const DEBIAN: Host = host!("debian-12-cgroup-v1");
const UBUNTU: Host = host!("ubuntu-24.04");
const FEDORA: Host = host!("fedora-selinux");
const WSL: Host = host!("wsl2");
const DESKTOP: Host = host!("docker-desktop");
const FEW_INSTANCES: Host = host!("few-inotify-instances");
const ONE_GIB: Host = host!("one-gib");
const NO_MODULES: Host = host!("no-modules");

type Host = (&'static str, &'static str);

fn engine(host: Host) -> EngineInfo {
    engine_info(serde_json::from_str(host.0).unwrap())
}

fn input(spec: Value) -> Input {
    let mut spec = spec;
    if spec["version"].is_null() {
        spec["version"] = "v1.36.1+k3s1".into();
    }
    let spec: K3sClusterSpec = serde_json::from_value(spec).unwrap();
    Input {
        identity: Identity::standalone("engine", "default", "dev"),
        spec,
        values: Values::default(),
        settings: Settings::default(),
        internal: InternalAccess::None,
    }
}

/// The verdict on a new cluster on a host that is as recorded, but for `change`.
fn judged(
    host: Host,
    spec: Value,
    change: impl FnOnce(&mut EngineInfo, &mut Machine, &mut Ask<'_>),
) -> HostVerdict {
    let input = input(spec);
    let (mut engine, mut machine, mut ask) = (engine(host), Machine::parse(host.1), Ask::whole(&input));
    change(&mut engine, &mut machine, &mut ask);
    HostVerdict::of(&engine, &machine, &ask)
}

fn as_is(host: Host, spec: Value) -> HostVerdict {
    judged(host, spec, |_, _, _| ())
}

fn assert_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn what_machines_print_is_read() {
    for (host, memory, tasks) in [
        (DEBIAN, 8_128_456, 214),
        (UBUNTU, 16_342_920, 301),
        (FEDORA, 16_276_400, 412),
        (WSL, 8_028_480, 188),
        (DESKTOP, 8_024_428, 612),
        (FEW_INSTANCES, 32_728_456, 1904),
        (ONE_GIB, 948_304, 150),
        (NO_MODULES, 24_684_096, 276),
    ] {
        let machine = Machine::parse(host.1);
        assert_eq!(machine.memory, Some(memory << 10));
        assert_eq!(machine.tasks, Some(tasks));
        assert!(machine.routes.contains(&"172.17.0.0/16".parse().unwrap()), "{:?}", machine.routes);
        assert!(machine.disk > machine.disk_free && machine.disk_free > Some(1 << 20), "{machine:?}");
        assert_eq!(machine.sysctls.len(), 5, "{:?}", machine.sysctls);
        assert!(engine(host).memory > Some(900 << 20) && !engine(host).runtimes.is_empty());
    }
    let ubuntu = Machine::parse(UBUNTU.1);
    assert_eq!(ubuntu.v2_controllers.as_ref().map(std::collections::BTreeSet::len), Some(8));
    assert_eq!(ubuntu.sysctl("fs/file-max"), Some(i64::MAX as u64));
    assert_eq!(ubuntu.loads_modules, Some(true));
    assert_eq!(Machine::parse(NO_MODULES.1).loads_modules, Some(false));
    assert!(engine(FEDORA).has_security("selinux"));
}

#[test]
fn a_probe_that_says_nothing_blocks_nothing() {
    let machine = Machine::parse("");
    assert_eq!(machine, Machine::default());
    for host in [DEBIAN, UBUNTU, FEDORA, WSL, DESKTOP, FEW_INSTANCES, ONE_GIB, NO_MODULES] {
        let spec = json!({"agents": {"replicas": 200}, "k3s": {"flannelBackend": "wireguard-native"}});
        let verdict = judged(host, spec, |_, machine, _| *machine = Machine::default());
        assert_eq!(verdict.blocked(), None);
    }
    let broken =
        "df:overlay x% y\n/proc/meminfo:MemTotal:\n/proc/net/route:x\n/proc/loadavg:1\nnonsense\n:\n";
    assert_eq!(Machine::parse(broken), Machine::default());
}

#[test]
fn whole_verdicts() {
    let crowded = judged(FEW_INSTANCES, json!({"agents": {"replicas": 2}}), |_, _, ask| ask.running = [4, 2]);
    let verdicts = [
        ("Debian 12 with cgroup v1", as_is(DEBIAN, json!({}))),
        ("Ubuntu 24.04", as_is(UBUNTU, json!({}))),
        ("Fedora with SELinux", as_is(FEDORA, json!({}))),
        ("WSL 2", as_is(WSL, json!({}))),
        ("Docker Desktop", as_is(DESKTOP, json!({}))),
        ("few inotify instances, six nodes run and three come", crowded),
        ("1 GiB of memory", as_is(ONE_GIB, json!({}))),
        ("a kernel without modules", as_is(NO_MODULES, json!({}))),
    ];
    let text: String =
        verdicts.iter().map(|(host, verdict)| format!("{host}:\n  {}\n", verdict.message())).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn what_certainly_cannot_work_blocks_and_names_field_and_remedy() {
    for (host, spec, parts) in [
        (
            UBUNTU,
            json!({"servers": {"resources": {"cpu": 64}}}),
            &["spec.servers.resources.cpu: 64", "8 CPUs", "write 8 at most"][..],
        ),
        (
            UBUNTU,
            json!({"nodeDefaults": {"resources": {"cpu": "8001m"}}}),
            &["spec.nodeDefaults.resources.cpu: 8001m"],
        ),
        (
            DESKTOP,
            json!({"servers": {"resources": {"memory": "900Ti"}}}),
            &["spec.servers.resources.memory: 900Ti", "7.6 GiB", "Settings, Resources"],
        ),
        (
            WSL,
            json!({"agents": {"replicas": 1, "resources": {"memory": "9Gi"}}}),
            &["spec.agents.resources.memory: 9Gi", ".wslconfig"],
        ),
        (
            UBUNTU,
            json!({"servers": {"runtime": "nope"}}),
            &["spec.servers.runtime: Docker knows no runtime nope", "runc", "daemon.json"],
        ),
        (
            NO_MODULES,
            json!({"k3s": {"flannelBackend": "wireguard-native"}}),
            &["spec.k3s.flannelBackend: wireguard-native needs wireguard", "CONFIG_WIREGUARD", "host-gw"],
        ),
        (
            ONE_GIB,
            json!({}),
            &[
                "memory",
                "cgroup_enable=memory",
                "flannelBackend: vxlan needs vxlan",
                "host-gw",
                "354 MiB free",
                "docker system prune",
            ],
        ),
        (
            FEW_INSTANCES,
            json!({"agents": {"replicas": 14}}),
            &[
                "fs.inotify.max_user_instances is 128",
                "15 nodes",
                "138",
                "sudo sysctl -w fs.inotify.max_user_instances=8192",
                "k3nest up",
            ],
        ),
        (
            FEW_INSTANCES,
            json!({"agents": {"replicas": 80}}),
            &["fs.file-max is 98304", "81 nodes", "sudo sysctl -w fs.file-max=262144"],
        ),
    ] {
        let blocked = as_is(host, spec.clone()).blocked().unwrap_or_else(|| panic!("{spec} is let pass"));
        assert_eq!(blocked.reason, Reason::HostIncompatible);
        assert_all(&blocked.message, parts);
    }
}

#[test]
fn what_is_within_bounds_is_let_pass() {
    for (host, spec) in [
        (UBUNTU, json!({"servers": {"resources": {"cpu": 8, "memory": "15Gi"}}})),
        (UBUNTU, json!({"servers": {"runtime": "io.containerd.kata.v2"}})),
        (UBUNTU, json!({"nodeDefaults": {"resources": {"cpu": 64}}, "servers": {"resources": {"cpu": 2}}})),
        (UBUNTU, json!({"agents": {"replicas": 0, "runtime": "nope"}})),
        (UBUNTU, json!({"k3s": {"flannelBackend": "wireguard-native"}})),
        (NO_MODULES, json!({"agents": {"replicas": 30}})),
        (FEW_INSTANCES, json!({"agents": {"replicas": 12}})),
    ] {
        assert_eq!(as_is(host, spec.clone()).blocked(), None, "{spec}");
    }
}

#[test]
fn cgroup_controllers_that_k3s_needs() {
    let without = |name: &'static str| {
        judged(UBUNTU, json!({}), move |_, machine, _| {
            machine.v2_controllers.as_mut().unwrap().remove(name);
        })
    };
    for name in ["cpu", "cpuset", "memory", "pids"] {
        let blocked = without(name).blocked().unwrap();
        assert_all(&blocked.message, &[&format!("no cgroup controller {name},"), &format!("echo '+{name}'")]);
    }
    assert_eq!(without("io").blocked(), None);
    let delegate = judged(UBUNTU, json!({}), |engine, machine, _| {
        engine.security.push("rootless".into());
        machine.v2_controllers.as_mut().unwrap().remove("cpuset");
    });
    assert_all(&delegate.message(), &["Delegate=cpu cpuset io memory pids"]);
}

#[test]
fn older_kubernetes_is_not_told_about_cgroup_v1() {
    let message = as_is(DEBIAN, json!({"version": "v1.34.3+k3s1"})).message();
    assert!(message.contains("cgroup v1") && !message.contains("fail-cgroupv1"), "{message}");
}

#[test]
fn how_docker_is_set_up() {
    let note = |change: fn(&mut EngineInfo), spec: Value, parts: &[&str]| {
        let verdict = judged(UBUNTU, spec, |engine, _, _| change(engine));
        assert_eq!(verdict.blocked(), None);
        assert_all(&verdict.message(), parts);
    };
    note(|e| e.security.push("userns".into()), json!({}), &["; note: Docker remaps users"]);
    note(|e| e.security.push("rootless".into()), json!({}), &["KubeletInUserNamespace=true"]);
    note(|e| e.driver = "vfs".into(), json!({}), &["vfs", "\"storage-driver\": \"overlay2\""]);
    note(|e| e.driver = "zfs".into(), json!({}), &["ZFS", "--snapshotter=native"]);
    let untyped: fn(&mut EngineInfo) = |e| {
        e.driver_status.insert("Supports d_type".into(), "false".into());
    };
    note(untyped, json!({}), &["no d_type", "ftype=1"]);
    note(
        |_| (),
        json!({"agents": {"replicas": 1, "resources": {"gpus": "all"}}}),
        &["spec.agents.resources.gpus", "nvidia-ctk"],
    );

    let message = as_is(DESKTOP, json!({"servers": {"resources": {"gpus": 1}}})).message();
    assert!(!message.contains("note"), "{message}");
    let args = json!({"nodeDefaults": {"args": ["--kubelet-arg=feature-gates=KubeletInUserNamespace=true"]}});
    let message = judged(UBUNTU, args, |e, _, _| e.security.push("rootless".into())).message();
    assert!(message.ends_with("where k3nest was never tried"), "{message}");
    let blocked = judged(DEBIAN, json!({}), |e, _, _| e.security.push("rootless".into())).blocked().unwrap();
    assert_all(&blocked.message, &["rootless on cgroup v1", "unified_cgroup_hierarchy=1"]);
}

#[test]
fn what_the_kernel_lacks() {
    let option = |name: &'static str, spec: Value| {
        judged(WSL, spec, move |_, machine, _| {
            machine.options.insert(name.into(), false);
            machine.modules.clear();
            machine.filesystems.remove("overlay");
        })
    };
    let blocked = option("NETFILTER_XT_MATCH_STATISTIC", json!({})).blocked().unwrap();
    assert_all(&blocked.message, &["CONFIG_NETFILTER_XT_MATCH_STATISTIC", "proxy-mode=nftables"]);
    let nftables = json!({"nodeDefaults": {"args": ["--kube-proxy-arg=proxy-mode=nftables"]}});
    assert_eq!(option("NETFILTER_XT_MATCH_STATISTIC", nftables).blocked(), None);
    assert_all(
        &option("OVERLAY_FS", json!({})).blocked().unwrap().message,
        &["overlayfs", "--snapshotter=native"],
    );
    assert_eq!(option("OVERLAY_FS", json!({"servers": {"args": ["--snapshotter=native"]}})).blocked(), None);
    assert_eq!(option("VXLAN", json!({"k3s": {"flannelBackend": "host-gw"}})).blocked(), None);
    assert_all(
        &option("BRIDGE_NETFILTER", json!({})).message(),
        &["note: br_netfilter", "CONFIG_BRIDGE_NETFILTER"],
    );

    let leak = vec!["PATH".to_owned(), "INVOCATION_ID".to_owned()];
    let input = input(json!({}));
    let mut ask = Ask::whole(&input);
    ask.image_env = &leak;
    let verdict = HostVerdict::of(&engine(UBUNTU), &Machine::parse(UBUNTU.1), &ask);
    assert_all(&verdict.message(), &["note: the nodes' image sets INVOCATION_ID"]);
}

#[test]
fn selinux_is_noted_where_it_is_on() {
    let unlabelled = judged(FEDORA, json!({}), |engine, machine, _| {
        engine.security.retain(|name| name != "selinux");
        machine.label = Some("system_u:system_r:unconfined_service_t:s0".into());
    });
    assert_all(&unlabelled.message(), &["without its support", "selinux-enabled"]);
    let permissive = judged(FEDORA, json!({}), |_, machine, _| machine.enforcing = Some(false)).message();
    assert!(!permissive.contains("SELinux"), "{permissive}");
}

#[test]
fn memory_and_disk_that_may_not_suffice_are_noted() {
    let spec = json!({"agents": {"replicas": 3}, "nodeDefaults": {"resources": {"memory": "4Gi"}}});
    assert_all(&as_is(UBUNTU, spec).message(), &["note: 4 new nodes may take 16 GiB", "14.3 GiB left"]);
    let full = judged(UBUNTU, json!({}), |_, machine, _| machine.disk_free = Some(1 << 30)).message();
    assert_all(
        &full,
        &[
            "/var/lib/docker on the Docker host has 1 GiB free",
            "1 new node should have 2 GiB",
            "disk-pressure",
        ],
    );
}
