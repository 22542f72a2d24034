//! What is installed into a host cluster: the manifests of config/, which the binary carries, and
//! the CRD, which it makes from its own types.

use kube::{CustomResourceExt, api::DynamicObject};
use serde_json::{Value, json};

use crate::api::K3sCluster;

/// Namespace of the operator.
pub const NAMESPACE: &str = "k3nest-system";

/// Name of the operator's Deployment and ServiceAccount.
pub const NAME: &str = "k3nest-operator";

/// Why the manifests could not be used. A test keeps this from happening.
#[derive(Debug, thiserror::Error)]
#[error("{manifest}: {message}")]
pub struct InstallError {
    /// The manifest.
    pub manifest: String,
    /// What is wrong with it.
    pub message: String,
}

/// The manifests of config/ by file name, in the order of installation. The CRD, which belongs
/// behind the namespace, is not among them.
pub fn manifests() -> Vec<(&'static str, &'static str)> {
    vec![
        ("namespace.yaml", include_str!("../../config/namespace.yaml")),
        ("rbac.yaml", include_str!("../../config/rbac.yaml")),
        ("deployment.yaml", include_str!("../../config/deployment.yaml")),
    ]
}

/// The sample cluster, as YAML.
pub fn sample() -> &'static str {
    include_str!("../../config/samples/cluster.yaml")
}

/// Every object of an installation in order, with the operator running `image` and `settings`
/// appended to its arguments.
///
/// # Errors
/// Where a manifest is not what it should be, which a test rules out.
pub fn objects(image: &str, settings: &[String]) -> Result<Vec<DynamicObject>, InstallError> {
    let mut documents = vec![("crd".to_owned(), json!(K3sCluster::crd()))];
    for (name, text) in manifests() {
        let parsed: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|e| InstallError { manifest: name.into(), message: e.to_string() })?;
        documents.extend(parsed.into_iter().map(|document| (name.to_owned(), document)));
    }
    // Kinds that others need come first, as kubectl apply -k and Helm sort them.
    documents.sort_by_key(|(_, document)| order(document["kind"].as_str().unwrap_or_default()));
    documents
        .into_iter()
        .map(|(manifest, mut document)| {
            if document["kind"] == "Deployment" {
                customise(&mut document, image, settings).ok_or_else(|| InstallError {
                    manifest: manifest.clone(),
                    message: "it has no container".into(),
                })?;
            }
            serde_json::from_value(document).map_err(|e| InstallError { manifest, message: e.to_string() })
        })
        .collect()
}

fn order(kind: &str) -> usize {
    let first =
        ["Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
    first.iter().position(|known| *known == kind).unwrap_or(first.len())
}

fn customise(deployment: &mut Value, image: &str, settings: &[String]) -> Option<()> {
    let container = deployment.pointer_mut("/spec/template/spec/containers/0")?.as_object_mut()?;
    container.insert("image".into(), image.into());
    let args = container.get_mut("args")?.as_array_mut()?;
    args.extend(settings.iter().map(|setting| Value::from(setting.as_str())));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            ABANDON_ANNOTATION, ADOPT_ANNOTATION, RECOVER_ANNOTATION,
            validate::{Policy, check_document, check_spec},
        },
        operator::OperatorArgs,
    };

    #[test]
    fn objects_come_in_the_order_of_installation_with_image_and_settings() {
        let objects = objects("k3nest:test", &["--concurrency=2".into()]).unwrap();
        let kinds: Vec<_> = objects.iter().map(|o| o.types.as_ref().unwrap().kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "Namespace",
                "CustomResourceDefinition",
                "ServiceAccount",
                "ClusterRole",
                "ClusterRoleBinding",
                "Deployment"
            ]
        );
        let container = &objects[5].data["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "k3nest:test");
        assert_eq!(container["args"], json!(["operator", "--concurrency=2"]));
    }

    #[test]
    fn every_variable_of_the_deployment_is_one_the_operator_reads() {
        use clap::Args;
        let command = OperatorArgs::augment_args(clap::Command::new("operator"));
        let read: Vec<_> = command.get_arguments().filter_map(|a| a.get_env()?.to_str()).collect();
        let objects = objects("k3nest:test", &[]).unwrap();
        let env = objects[5].data["spec"]["template"]["spec"]["containers"][0]["env"].clone();
        for variable in env.as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            assert!(read.contains(&name) || name == "POD_NAME", "{name}");
        }
    }

    #[test]
    fn the_samples_are_valid_and_the_full_one_shows_every_field() {
        let full = include_str!("../../config/samples/cluster-full.yaml");
        for text in [sample(), full] {
            let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
            for document in documents.iter().filter(|d| d["kind"] == "K3sCluster") {
                assert_eq!(check_document(document, None), []);
                let cluster: K3sCluster = serde_json::from_value(document.clone()).unwrap();
                let none = Policy { allowed_host_paths: Vec::new() };
                assert_eq!(check_spec(&cluster.spec, &none), []);
            }
        }
        let schema = json!(K3sCluster::crd());
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut fields = Vec::new();
        names(spec, &mut fields);
        // These exclude what the sample shows, or are shown in a comment.
        let missing: Vec<_> = fields.iter().filter(|field| !full.contains(field.as_str())).collect();
        assert!(missing.is_empty(), "config/samples/cluster-full.yaml does not show {missing:?}");
    }

    #[test]
    fn annotations_are_where_people_look_for_them() {
        let schema = &json!(K3sCluster::crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let explained = schema["description"].as_str().unwrap();
        let full = include_str!("../../config/samples/cluster-full.yaml");
        for annotation in [ADOPT_ANNOTATION, RECOVER_ANNOTATION, ABANDON_ANNOTATION] {
            assert!(explained.contains(annotation), "kubectl explain k3c: {explained}");
            assert!(full.contains(annotation), "config/samples/cluster-full.yaml does not show {annotation}");
        }
    }

    fn names(schema: &Value, found: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                found.push(name.clone());
                names(property, found);
            }
        }
        if schema["items"].is_object() {
            names(&schema["items"], found);
        }
    }
}
