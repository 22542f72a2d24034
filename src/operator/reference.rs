//! Step "dereference": the values of every Secret and ConfigMap key that a spec refers to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::error::{Context as _, ReconcileError};
use crate::{
    api::{Blocked, K3sClusterSpec, Reason},
    plan::{Sensitive, SourceKey, Values},
};

/// Reads what `spec` refers to, each object once.
///
/// # Errors
/// Where the API server does not answer. Something missing is no error but what blocks the
/// cluster.
pub async fn dereference(
    client: &Client,
    namespace: &str,
    spec: &K3sClusterSpec,
) -> Result<Result<Values, Blocked>, ReconcileError> {
    let mut objects = BTreeMap::new();
    let mut values = Values::default();
    let mut missing = Vec::new();
    for (field, key) in SourceKey::all(spec) {
        let (object, entry) = parts(&key);
        if !objects.contains_key(&object) {
            let data = read(client, namespace, &object).await?;
            objects.insert(object.clone(), data);
        }
        match objects.get(&object).and_then(Option::as_ref) {
            None => missing.push(format!(
                "{field}: {object} does not exist in namespace {namespace}; create it with the key {entry}"
            )),
            Some(data) => match data.get(&entry) {
                None => {
                    missing.push(format!("{field}: {object} has no key {entry}; add it, or name another key"))
                }
                Some(value) => drop(values.0.insert(key, value.clone())),
            },
        }
    }
    if missing.is_empty() {
        return Ok(Ok(values));
    }
    Ok(Err(Blocked::new(Reason::ReferenceMissing, missing.join("; "))))
}

/// An object that is referred to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Secret(String),
    ConfigMap(String),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "Secret {name}"),
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
        }
    }
}

fn parts(key: &SourceKey) -> (Object, String) {
    match key {
        SourceKey::Secret { name, key } => (Object::Secret(name.clone()), key.clone()),
        SourceKey::ConfigMap { name, key } => (Object::ConfigMap(name.clone()), key.clone()),
    }
}

type Data = BTreeMap<String, Sensitive<Vec<u8>>>;

async fn read(client: &Client, namespace: &str, object: &Object) -> Result<Option<Data>, ReconcileError> {
    let what = || format!("read {object} in namespace {namespace}");
    Ok(match object {
        Object::Secret(name) => {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let found = secrets.get_opt(name).await.context(what)?;
            found.map(|s| {
                s.data.unwrap_or_default().into_iter().map(|(k, v)| (k, Sensitive::new(v.0))).collect()
            })
        }
        Object::ConfigMap(name) => {
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let found = maps.get_opt(name).await.context(what)?;
            found.map(|m| {
                let text =
                    m.data.unwrap_or_default().into_iter().map(|(k, v)| (k, Sensitive::new(v.into_bytes())));
                let binary =
                    m.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, Sensitive::new(v.0)));
                text.chain(binary).collect()
            })
        }
    })
}
