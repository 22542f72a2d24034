//! Reading resources from files: the same YAML that `kubectl apply` takes, several documents in
//! one, with the Secrets and ConfigMaps that the clusters refer to beside them.

use std::{collections::BTreeMap, io::Read, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::CliError;
use crate::{
    api::{
        Blocked, K3sCluster, Reason,
        validate::{Policy, check_document, check_spec},
    },
    plan::{Sensitive, SourceKey, Values},
};

/// A cluster as a file says it.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// Its namespace; `default` where the file names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The resource.
    pub cluster: K3sCluster,
    /// What it refers to.
    pub values: Result<Values, Blocked>,
    /// As written, for the check of immutable fields.
    pub document: Value,
}

impl ClusterFile {
    /// What the record keeps: the resource without status, and without values of Secrets.
    pub fn kept(&self) -> String {
        let mut kept = self.document.clone();
        if let Some(object) = kept.as_object_mut() {
            object.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
        }
        kept.to_string()
    }
}

/// Every document in `paths` (`-` is standard input), with where it is.
fn documents(paths: &[String]) -> Result<Vec<(String, Value)>, CliError> {
    let mut documents = Vec::new();
    for path in paths {
        let text = text_of(path)?;
        let parsed: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|e| CliError::Input(format!("{path} is not YAML: {}", e.without_snippet())))?;
        documents
            .extend(parsed.into_iter().enumerate().map(|(i, d)| (format!("{path}, document {}", i + 1), d)));
    }
    documents.retain(|(_, document)| !document.is_null());
    Ok(documents)
}

/// Namespace and name of every cluster in `paths`. Whether they are well said does not matter: what
/// cannot be applied any more can still be deleted.
///
/// # Errors
/// Where there are none, or a file is not YAML.
pub fn names(paths: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let clusters = documents(paths)?;
    let names: Vec<(String, String)> = clusters
        .iter()
        .filter(|(_, document)| text(document, "kind") == "K3sCluster")
        .map(|(_, document)| &document["metadata"])
        .map(|metadata| (namespace(metadata), text(metadata, "name").to_owned()))
        .collect();
    if names.is_empty() {
        return Err(CliError::Input(format!("no K3sCluster in {}", paths.join(", "))));
    }
    Ok(names)
}

/// The namespace that `metadata` names, or the default one.
fn namespace(metadata: &Value) -> String {
    match text(metadata, "namespace") {
        "" => "default".to_owned(),
        namespace => namespace.to_owned(),
    }
}

/// Every cluster in `paths` (`-` is standard input), checked by the rules of the API server.
///
/// # Errors
/// With everything that is wrong, each with file, document and field.
pub fn read(paths: &[String]) -> Result<Vec<ClusterFile>, CliError> {
    let documents = documents(paths)?;
    let sources = sources(&documents)?;

    let mut clusters = Vec::new();
    let mut problems = Vec::new();
    for (at, document) in documents {
        match (text(&document, "apiVersion"), text(&document, "kind")) {
            ("k3nest.dev/v1alpha1", "K3sCluster") => match cluster(document, &sources) {
                Ok(cluster) => clusters.push(cluster),
                Err(found) => problems.extend(found.into_iter().map(|p| format!("{at}: {p}"))),
            },
            ("v1", "Secret" | "ConfigMap") => {}
            (version, kind) => problems.push(format!(
                "{at}: apiVersion {version:?} and kind {kind:?} are not known here; write k3nest.dev/v1alpha1 and K3sCluster, or a v1 Secret or ConfigMap that a cluster refers to"
            )),
        }
    }
    for (i, cluster) in clusters.iter().enumerate() {
        if clusters[..i].iter().any(|c| (&c.namespace, &c.name) == (&cluster.namespace, &cluster.name)) {
            problems.push(format!(
                "cluster {}/{} is there twice; remove one of the two",
                cluster.namespace, cluster.name
            ));
        }
    }
    if !problems.is_empty() {
        return Err(CliError::Input(problems.join("\n        ")));
    }
    if clusters.is_empty() {
        return Err(CliError::Input(format!("no K3sCluster in {}", paths.join(", "))));
    }
    Ok(clusters)
}

fn text_of(path: &str) -> Result<String, CliError> {
    let unreadable = |e: std::io::Error| CliError::Input(format!("{path} cannot be read: {e}"));
    if path == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        return Ok(text);
    }
    std::fs::read_to_string(Path::new(path)).map_err(unreadable)
}

fn text<'a>(document: &'a Value, key: &str) -> &'a str {
    document.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn cluster(document: Value, sources: &Sources) -> Result<ClusterFile, Vec<String>> {
    let words =
        |problems: Vec<crate::api::validate::Problem>| problems.iter().map(ToString::to_string).collect();
    let problems = check_document(&document, None);
    if !problems.is_empty() {
        return Err(words(problems));
    }
    let cluster: K3sCluster = serde_json::from_value(document.clone()).map_err(|e| vec![e.to_string()])?;
    let problems = check_spec(&cluster.spec, &Policy::unfenced());
    if !problems.is_empty() {
        return Err(words(problems));
    }
    let namespace = cluster.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    let values = sources.values(&namespace, &cluster);
    Ok(ClusterFile {
        name: cluster.metadata.name.clone().unwrap_or_default(),
        namespace,
        cluster,
        values,
        document,
    })
}

/// Secrets and ConfigMaps of the files, by namespace and key.
struct Sources(BTreeMap<(String, SourceKey), Sensitive<Vec<u8>>>);

impl Sources {
    fn values(&self, namespace: &str, cluster: &K3sCluster) -> Result<Values, Blocked> {
        let mut values = Values::default();
        for (field, key) in SourceKey::all(&cluster.spec) {
            let value = self.0.get(&(namespace.to_owned(), key.clone())).ok_or_else(|| {
                Blocked::new(
                    Reason::ReferenceMissing,
                    format!(
                        "{field}: {key} is not in namespace {namespace} of the files; add a document with it"
                    ),
                )
            })?;
            values.0.insert(key, value.clone());
        }
        Ok(values)
    }
}

fn sources(documents: &[(String, Value)]) -> Result<Sources, CliError> {
    let mut all = BTreeMap::new();
    for (at, document) in documents {
        let metadata = document.get("metadata").cloned().unwrap_or_default();
        let name = text(&metadata, "name").to_owned();
        let namespace = namespace(&metadata);
        let entries = |field: &str| {
            let map = document.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
            map.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        };
        let decode = |key: &str, data: &str| {
            BASE64_STANDARD
                .decode(data)
                .map_err(|_| CliError::Input(format!("{at}: key {key} is not base64")))
        };
        match text(document, "kind") {
            "Secret" => {
                let source = |key: String| (namespace.clone(), SourceKey::Secret { name: name.clone(), key });
                for (key, data) in entries("data") {
                    let bytes = decode(&key, &data)?;
                    all.insert(source(key), Sensitive::new(bytes));
                }
                for (key, value) in entries("stringData") {
                    all.insert(source(key), Sensitive::new(value.into_bytes()));
                }
            }
            "ConfigMap" => {
                let source =
                    |key: String| (namespace.clone(), SourceKey::ConfigMap { name: name.clone(), key });
                for (key, value) in entries("data") {
                    all.insert(source(key), Sensitive::new(value.into_bytes()));
                }
                for (key, data) in entries("binaryData") {
                    let bytes = decode(&key, &data)?;
                    all.insert(source(key), Sensitive::new(bytes));
                }
            }
            _ => {}
        }
    }
    Ok(Sources(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<ClusterFile>, CliError> {
        let file = std::env::temp_dir().join(format!("k3nest-files-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, text).unwrap();
        let result = read(&[file.to_string_lossy().into_owned()]);
        std::fs::remove_file(file).unwrap();
        result
    }

    #[test]
    fn values_come_from_documents_beside_the_cluster() {
        let clusters = read_text(
            "apiVersion: k3nest.dev/v1alpha1
kind: K3sCluster
metadata: {name: dev}
spec:
  version: v1.36.1+k3s1
  tokenSecretRef: {name: t, key: token}
---
apiVersion: v1
kind: Secret
metadata: {name: t}
stringData: {token: hidden}
",
        )
        .unwrap();
        assert_eq!(clusters.len(), 1);
        let values = clusters[0].values.clone().unwrap();
        assert_eq!(values.0.values().next().unwrap().expose(), b"hidden");
        assert!(!clusters[0].kept().contains("hidden"));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let error = read_text(
            "apiVersion: k3nest.dev/v1alpha1
kind: K3sCluster
metadata: {name: Dev}
spec: {version: latest}
---
apiVersion: v1
kind: Pod
metadata: {name: x}
",
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("document 1: spec.version: must name one k3s release"), "{error}");
        assert!(error.contains("document 1: metadata.name: must start with a letter"), "{error}");
        assert!(error.contains("document 2: apiVersion \"v1\" and kind \"Pod\""), "{error}");
    }
}
