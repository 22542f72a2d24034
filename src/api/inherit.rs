//! How a group of nodes inherits from `spec.nodeDefaults`.
//!
//! Maps merge and lists merge by key, both with the group's entry winning; args are appended.

use super::{NodeDefaults, NodeResources};

/// What holds for the nodes of a group that says `group`, with everything inherited from `defaults`.
pub fn inherit(defaults: Option<&NodeDefaults>, group: &NodeDefaults) -> NodeDefaults {
    let Some(defaults) = defaults else { return group.clone() };
    // Destructured without `..`, so that a new field must be handled here.
    let NodeDefaults {
        args,
        config,
        env,
        files,
        volumes,
        labels,
        taints,
        resources,
        ports,
        ulimits,
        host_aliases,
        runtime,
    } = group;

    let mut all_config = defaults.config.clone();
    all_config.extend(config.clone());
    let mut all_labels = defaults.labels.clone();
    all_labels.extend(labels.clone());
    NodeDefaults {
        args: defaults.args.iter().chain(args).cloned().collect(),
        config: all_config,
        env: merge(&defaults.env, env, |e| e.name.clone()),
        files: merge(&defaults.files, files, |f| f.path.clone()),
        volumes: merge(&defaults.volumes, volumes, |v| v.target.clone()),
        labels: all_labels,
        taints: merge(&defaults.taints, taints, |t| (t.key.clone(), t.effect)),
        resources: inherit_resources(defaults.resources.as_ref(), resources.as_ref()),
        ports: merge(&defaults.ports, ports, |p| (p.host_port, p.protocol)),
        ulimits: merge(&defaults.ulimits, ulimits, |u| u.name.clone()),
        host_aliases: merge(&defaults.host_aliases, host_aliases, |h| h.ip.clone()),
        runtime: runtime.clone().or_else(|| defaults.runtime.clone()),
    }
}

fn inherit_resources(base: Option<&NodeResources>, own: Option<&NodeResources>) -> Option<NodeResources> {
    let (Some(base), Some(own)) = (base, own) else { return own.or(base).cloned() };
    let NodeResources { cpu, memory, gpus } = own.clone();
    Some(NodeResources {
        cpu: cpu.or_else(|| base.cpu.clone()),
        memory: memory.or_else(|| base.memory.clone()),
        gpus: gpus.or_else(|| base.gpus.clone()),
    })
}

/// `base` with `own` laid over it by `key`, in the order of first mention.
fn merge<T: Clone, K: PartialEq>(base: &[T], own: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
    let mut merged: Vec<T> = base.to_vec();
    for item in own {
        match merged.iter_mut().find(|known| key(known) == key(item)) {
            Some(known) => *known = item.clone(),
            None => merged.push(item.clone()),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaults(value: serde_json::Value) -> NodeDefaults {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_group_wins_by_key_and_args_are_appended() {
        let base = defaults(json!({
            "args": ["--a"], "config": {"debug": true, "v": 1},
            "env": [{"name": "A", "value": "base"}, {"name": "B", "value": "base"}],
            "labels": {"x": "base", "y": "base"},
            "taints": [{"key": "k", "effect": "NoSchedule", "value": "base"}],
            "resources": {"cpu": 2, "memory": "1Gi"},
            "ulimits": [{"name": "nofile", "soft": 1, "hard": 2}],
            "runtime": "runc",
        }));
        let group = defaults(json!({
            "args": ["--b"], "config": {"v": 2},
            "env": [{"name": "B", "value": "own"}, {"name": "C", "value": "own"}],
            "labels": {"y": "own"},
            "taints": [{"key": "k", "effect": "NoSchedule", "value": "own"}, {"key": "k", "effect": "NoExecute"}],
            "resources": {"memory": "2Gi"},
            "ulimits": [{"name": "nproc", "soft": 1, "hard": 2}],
        }));
        insta::assert_yaml_snapshot!(inherit(Some(&base), &group));
    }
}
