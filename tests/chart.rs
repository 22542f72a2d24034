//! The chart renders the objects of config/. Needs Helm, which e2e/chart.sh brings:
//! `e2e/chart.sh`, or `HELM=helm cargo test --test chart -- --ignored`.

use std::{collections::BTreeMap, process::Command};

use k3nest::operator::install;
use serde_json::{Value, json};

/// The image in config/, before `objects` replaces it.
const IMAGE: &str = "k3nest.dev/operator:dev";

/// What `helm template` renders with `arguments`, by kind and name.
fn rendered(arguments: &[&str]) -> BTreeMap<(String, String), Value> {
    let helm = std::env::var("HELM").unwrap_or_else(|_| "helm".into());
    let output = Command::new(helm)
        .args(["template", "k3nest", "charts/k3nest", "--namespace", install::NAMESPACE])
        // A Helm built by go install takes a host cluster of its own age for granted.
        .args(["--kube-version", "1.36.1"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    by_name(documents)
}

/// What an installation by the binary consists of.
fn installed() -> BTreeMap<(String, String), Value> {
    let objects = install::objects(IMAGE, &[]).unwrap();
    by_name(objects.iter().map(|object| serde_json::to_value(object).unwrap()))
}

fn by_name(documents: impl IntoIterator<Item = Value>) -> BTreeMap<(String, String), Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let documents = documents.into_iter().filter(|document| !document.is_null());
    documents.map(|d| ((text(&d["kind"]), text(&d["metadata"]["name"])), d)).collect()
}

/// The first field that differs. Helm turns 0.0 into 0, so numbers are compared by value.
fn difference(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let null = Value::Null;
            let found = difference(a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
            found.map(|rest| format!("/{key}{rest}"))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| difference(a, b).map(|rest| format!("/{i}{rest}"))),
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        (a, b) => (a != b).then(|| format!(": {a} and {b}")),
    }
}

#[test]
#[ignore = "needs helm: run e2e/chart.sh"]
fn the_chart_renders_what_config_holds() {
    let mut rendered = rendered(&["--set", "namespace.create=true"]);
    let crd = ("CustomResourceDefinition".to_owned(), "k3sclusters.k3nest.dev".to_owned());
    let annotations =
        rendered.get_mut(&crd).unwrap()["metadata"].as_object_mut().unwrap().remove("annotations");
    assert_eq!(annotations, Some(json!({"helm.sh/resource-policy": "keep"})));

    let installed = installed();
    assert_eq!(rendered.keys().collect::<Vec<_>>(), installed.keys().collect::<Vec<_>>());
    for (name, object) in installed {
        if let Some(field) = difference(&rendered[&name], &object) {
            panic!("{name:?} differs at {field}");
        }
    }
}

#[test]
#[ignore = "needs helm: run e2e/chart.sh"]
fn the_namespace_is_left_to_helm_unless_asked_for() {
    assert!(!rendered(&[]).keys().any(|(kind, _)| kind == "Namespace"));
    assert!(
        !rendered(&["--set", "crds.install=false"])
            .keys()
            .any(|(kind, _)| kind == "CustomResourceDefinition")
    );
}

#[test]
#[ignore = "needs helm: run e2e/chart.sh"]
fn values_reach_the_deployment() {
    let rendered = rendered(&[
        "--set",
        "image.repository=example.com/k3nest,image.tag=v1,settings={--concurrency=2},serviceMonitor.enabled=true",
        "--set",
        "nodeSelector.docker=yes,podAnnotations.a=b,tolerations[0].operator=Exists",
    ]);
    let deployment = &rendered[&("Deployment".to_owned(), install::NAME.to_owned())];
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["image"], "example.com/k3nest:v1");
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["operator", "--concurrency=2"]));
    assert_eq!(pod["spec"]["nodeSelector"], json!({"docker": "yes"}));
    assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["metadata"]["annotations"], json!({"a": "b"}));
    assert!(rendered.keys().any(|(kind, _)| kind == "ServiceMonitor"));
}
