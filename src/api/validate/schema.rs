//! The CRD's own schema and CEL rules, evaluated without an API server.

use std::sync::LazyLock;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use kube::{CustomResourceExt, core::cel::Validator as CelValidator};
use serde_json::{Map, Value, json};

use super::Problem;
use crate::api::K3sCluster;

/// The schema of `K3sCluster` as the CRD has it.
static CRD_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = K3sCluster::crd();
    let schema =
        crd.spec.versions.into_iter().next().and_then(|v| v.schema).and_then(|s| s.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
});

/// The same, made strict: the API server refuses unknown fields when kubectl asks it to, JSON
/// Schema only where `additionalProperties` says so.
static STRICT: LazyLock<Result<jsonschema::Validator, String>> = LazyLock::new(|| {
    let mut schema = CRD_SCHEMA.clone();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
        properties.insert("metadata".into(), metadata_schema());
    }
    close(&mut schema);
    jsonschema::validator_for(&schema).map_err(|e| e.to_string())
});

fn metadata_schema() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string", "maxLength": 63},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    })
}

fn close(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let open = object.contains_key("additionalProperties")
        || object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if object.contains_key("properties") && !open {
        object.insert("additionalProperties".into(), Value::Bool(false));
    }
    object.values_mut().for_each(|child| match child {
        Value::Array(items) => items.iter_mut().for_each(close),
        child => close(child),
    });
}

/// Everything that is wrong with the `K3sCluster` document `object`, judged as the API server
/// judges it, against the former version `old` where there is one (immutable fields).
pub fn check_document(object: &Value, old: Option<&Value>) -> Vec<Problem> {
    let mut object = object.clone();
    drop_nulls(&mut object);
    let mut problems: Vec<Problem> = match &*STRICT {
        Ok(validator) => validator
            .iter_errors(&object)
            .map(|e| structural(e.kind(), e.instance_path().as_str(), e.instance()))
            .collect(),
        Err(broken) => vec![Problem::new("", format!("the CRD's schema cannot be evaluated: {broken}"))],
    };
    // CEL rules presume the right types, as in the API server.
    if problems.is_empty()
        && let Err(errors) = CelValidator::new().validate(&CRD_SCHEMA, &object, old)
    {
        problems = errors.into_vec().into_iter().map(|e| Problem::new(e.field_path, e.message)).collect();
    }
    problems.sort();
    problems.dedup();
    problems
}

/// `null` means "not given" to the API server.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            *map = std::mem::take(map).into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>();
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn structural(kind: &Kind, pointer: &str, found: &Value) -> Problem {
    let at = dotted(pointer);
    let child = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match kind {
        Kind::AdditionalProperties { unexpected } => {
            let name = unexpected.first().map(String::as_str).unwrap_or_default();
            let known = schema_at(pointer).into_iter().flat_map(|s| s.keys().cloned().collect::<Vec<_>>());
            let hint = closest(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Problem::new(child(name), format!("unknown field{hint}"))
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            Problem::new(child(name), "is required")
        }
        Kind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(many) => {
                    many.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(" or ")
                }
            };
            Problem::new(at, format!("must be of type {wanted}, not {found}"))
        }
        Kind::Enum { options } => Problem::new(at, format!("must be one of {options}, not {found}")),
        Kind::Minimum { limit } => Problem::new(at, format!("must be at least {limit}, not {found}")),
        Kind::Maximum { limit } => Problem::new(at, format!("must be at most {limit}, not {found}")),
        Kind::MaxLength { limit } => Problem::new(at, format!("must have at most {limit} characters")),
        Kind::MinLength { limit } => Problem::new(at, format!("must have at least {limit} characters")),
        Kind::MaxItems { limit } => Problem::new(at, format!("must have at most {limit} entries")),
        Kind::MaxProperties { limit } => Problem::new(at, format!("must have at most {limit} keys")),
        other => Problem::new(at, format!("breaks the schema's rule {}", other.keyword())),
    }
}

/// `/spec/servers/args/0` as `spec.servers.args[0]`.
fn dotted(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |mut path, part| {
        if part.parse::<usize>().is_ok() {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
        path
    })
}

/// The properties that the schema knows at `pointer`.
fn schema_at(pointer: &str) -> Option<&'static Map<String, Value>> {
    let mut schema: &Value = &CRD_SCHEMA;
    for part in pointer.split('/').skip(1) {
        schema = match part.parse::<usize>() {
            Ok(_) => schema.get("items")?,
            Err(_) => schema.get("properties")?.get(part)?,
        };
    }
    schema.get("properties")?.as_object()
}

/// The known name nearest to `name`, if it is near enough to be a slip.
fn closest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let lower = name.to_lowercase();
    known
        .map(|k| (distance(&lower, &k.to_lowercase()), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "k3nest.dev/v1alpha1", "kind": "K3sCluster", "metadata": {"name": "dev"}, "spec": spec});
        check_document(&object, None).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_small_cluster_is_well_said() {
        assert_eq!(check(json!({"version": "v1.36.1+k3s1", "network": null})), Vec::<String>::new());
    }

    #[test]
    fn slips_are_named_with_what_was_meant() {
        assert_eq!(
            check(json!({"version": "v1.36.1+k3s1", "loadbalancer": {}})),
            ["spec.loadbalancer: unknown field; did you mean loadBalancer?"]
        );
        assert_eq!(check(json!({})), ["spec.version: is required"]);
        assert_eq!(
            check(json!({"version": "v1.36.1+k3s1", "servers": {"args": "--debug"}})),
            ["spec.servers.args: must be of type array, not \"--debug\""]
        );
    }

    #[test]
    fn immutable_fields_are_held_against_the_former_version() {
        let with = |network: Value| json!({"metadata": {"name": "dev"}, "spec": {"version": "v1.36.1+k3s1", "network": network}});
        let (old, new) = (with(json!({"subnet": "172.30.1.0/24"})), with(json!({"subnet": "172.30.2.0/24"})));
        assert!(check_document(&new, Some(&new)).is_empty());
        let problems = check_document(&new, Some(&old));
        assert!(problems[0].to_string().starts_with("spec.network: cannot be changed"), "{problems:?}");
    }
}
