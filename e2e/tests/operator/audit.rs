//! What the operator asked the host cluster for, held against what it may ask for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::host::{NAMESPACE, OPERATOR, host};

/// The operator's rights, as they are installed.
const RIGHTS: &str = include_str!("../../../config/rbac.yaml");

/// What is wrong: whatever was forbidden and, after a whole run, rights that were never used.
pub fn judge(whole_run: bool) -> Vec<String> {
    let events = host().audit();
    let user = format!("system:serviceaccount:{NAMESPACE}:{OPERATOR}");
    let own: Vec<&Value> = events.iter().filter(|event| event["user"]["username"] == user).collect();
    if own.is_empty() {
        return vec![format!("no request of {user} is in the audit log of {} events", events.len())];
    }
    let mut wrong: Vec<String> = own
        .iter()
        .filter(|event| event["responseStatus"]["code"] == 403)
        .map(|event| forbidden(event))
        .collect();
    wrong.dedup();
    let used: BTreeSet<Right> = own.iter().filter_map(|event| Right::used(event)).collect();
    eprintln!("{} requests of the operator audited, {} kinds of them", own.len(), used.len());
    if whole_run {
        let unused = rights().into_iter().filter(|right| !used.contains(right));
        wrong.extend(unused.map(|right| format!("config/rbac.yaml allows what was never used: {right}")));
    }
    wrong
}

fn forbidden(event: &Value) -> String {
    format!("forbidden: {} {}: {}", event["verb"], event["requestURI"], event["responseStatus"]["message"])
}

/// One thing that may be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    resource: String,
    verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of group {:?}", self.verb, self.resource, self.group)
    }
}

impl Right {
    /// The one that a request made use of.
    fn used(event: &Value) -> Option<Self> {
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = object["resource"].as_str()?;
        let resource = match object["subresource"].as_str() {
            Some(part) => format!("{kind}/{part}"),
            None => kind.to_owned(),
        };
        Some(Self { group: text(&object["apiGroup"]), resource, verb: text(&event["verb"]) })
    }
}

/// Every single right of the ClusterRole.
fn rights() -> Vec<Right> {
    let documents = RIGHTS.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
    let role = documents.into_iter().find(|object| object["kind"] == "ClusterRole").expect("a ClusterRole");
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let list = rule[field].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    rights.push(Right { group: group.clone(), resource: resource.clone(), verb });
                }
            }
        }
    }
    rights
}
