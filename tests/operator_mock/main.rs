//! The operator against a mock API server and a scripted Docker host, scenario by scenario.

mod adoption;
mod api;
mod backend;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use k3nest::{
    api::{ABANDON_ANNOTATION, FINALIZER, Identity, K3sCluster},
    operator::{self, Context, Metrics, OperatorArgs, ReconcileError},
};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use api::{FakeApi, Write};
use backend::{ENGINE, FakeBackend, KEY, Scenario};

const CLUSTER: &str = "/apis/k3nest.dev/v1alpha1/namespaces/team/k3sclusters/dev";
const SECRET: &str = "/api/v1/namespaces/team/secrets/dev-kubeconfig";
const SERVICE: &str = "/api/v1/namespaces/team/services/dev-k3s-api";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices/dev-k3s-api";
const UID: &str = "12345678-9abc-4def-8000-000000000000";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    operator: OperatorArgs,
}

/// A host cluster with one K3sCluster, and an operator for it.
struct Given {
    api: FakeApi,
    ctx: Arc<Context<FakeBackend>>,
}

impl Given {
    fn new(scenario: Scenario, args: &[&str]) -> Self {
        let (api, client) = FakeApi::start();
        let args = Cli::parse_from([&["k3nest"], args].concat()).operator;
        let metrics = Arc::new(Metrics::new().unwrap());
        let ctx = Context::new(client, FakeBackend::new(scenario), "instance".into(), &args, metrics);
        let given = Self { api, ctx: Arc::new(ctx) };
        given.api.put("/api/v1/namespaces/team", json!({"metadata": {"name": "team"}}));
        given.cluster(json!({"version": "v1.36.1+k3s1"}));
        given
    }

    /// A cluster that has its finalizer already.
    fn cluster(&self, spec: Value) -> &Self {
        let object = json!({
            "apiVersion": "k3nest.dev/v1alpha1", "kind": "K3sCluster",
            "metadata": {
                "name": "dev", "namespace": "team", "uid": UID, "generation": 3, "resourceVersion": "1",
                "finalizers": [FINALIZER],
            },
            "spec": spec,
        });
        self.api.put(CLUSTER, object);
        self
    }

    fn changed(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let mut cluster = self.api.get(CLUSTER).unwrap();
        change(&mut cluster);
        self.api.put(CLUSTER, cluster);
        self
    }

    fn deleted(&self) -> &Self {
        self.changed(|c| c["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into())
    }

    async fn reconciled(&self) -> Result<Action, ReconcileError> {
        let cluster: K3sCluster = serde_json::from_value(self.api.get(CLUSTER).unwrap()).unwrap();
        operator::reconcile(Arc::new(cluster), self.ctx.clone()).await
    }

    fn condition(&self, type_: &str) -> Value {
        let conditions = self.api.get(CLUSTER).unwrap()["status"]["conditions"].clone();
        let found = conditions.as_array().and_then(|all| all.iter().find(|c| c["type"] == type_).cloned());
        found.unwrap_or_else(|| panic!("no condition {type_} in {conditions}"))
    }

    fn finalizers(&self) -> Value {
        self.api.get(CLUSTER).unwrap()["metadata"]["finalizers"].clone()
    }

    /// The identities under which something was removed.
    fn removed(&self) -> Vec<Identity> {
        self.ctx.backend.removals.lock().unwrap().clone()
    }

    fn steps(&self) -> usize {
        self.ctx.backend.steps.lock().unwrap().len()
    }
}

fn paths(writes: &[Write]) -> Vec<String> {
    writes.iter().map(|w| format!("{} {}", w.method, w.path)).collect()
}

fn events(writes: &[Write]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = writes.iter().filter(|w| w.path.ends_with("/events"));
    events.map(|w| (text(&w.body["reason"]), text(&w.body["note"]))).collect()
}

#[tokio::test]
async fn the_first_reconciliation_adds_the_finalizer_and_nothing_else() {
    let given = Given::new(Scenario::Fine, &[]);
    given.changed(|c| drop(c["metadata"].as_object_mut().unwrap().remove("finalizers")));
    given.reconciled().await.unwrap();
    assert_eq!(given.finalizers(), json!([FINALIZER]));
    assert_eq!(paths(&given.api.writes()), [format!("PATCH {CLUSTER}")]);
    assert_eq!(given.steps(), 0);
}

#[tokio::test]
async fn a_ready_cluster_is_published_and_reported() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();

    let secret = given.api.get(SECRET).unwrap();
    assert_eq!(secret["type"], "cluster.x-k8s.io/secret");
    assert_eq!(secret["metadata"]["labels"]["cluster.x-k8s.io/cluster-name"], "dev");
    let keys: Vec<_> = secret["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["ca.crt", "internal-server", "kubeconfig", "server", "tls.crt", "tls.key", "value"]);
    for path in [SECRET, SERVICE, SLICE] {
        assert_eq!(given.api.get(path).unwrap()["metadata"]["ownerReferences"][0]["uid"], UID, "{path}");
    }
    assert_eq!(given.api.get(SERVICE).unwrap()["spec"]["selector"], Value::Null);
    let slice = given.api.get(SLICE).unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.112.0.9"]));
    assert_eq!(slice["ports"][0]["port"], 6443);
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "dev-k3s-api");
    assert_eq!(slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "k3nest.dev");

    let status = given.api.get(CLUSTER).unwrap()["status"].clone();
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["kubeconfigSecretRef"]["name"], "dev-kubeconfig");
    assert_eq!(status["internalEndpoint"], "https://dev-k3s-api.team.svc:6443");
    assert_eq!(events(&given.api.writes()), [("Ready".to_owned(), "every node is Ready".to_owned())]);
}

#[tokio::test]
async fn a_second_reconciliation_writes_nothing() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();
    given.api.writes();
    given.reconciled().await.unwrap();
    assert_eq!(paths(&given.api.writes()), Vec::<String>::new());
}

#[tokio::test]
async fn a_report_that_the_watch_has_not_brought_back_yet_is_known() {
    let given = Given::new(Scenario::Fine, &[]);
    let stale: K3sCluster = serde_json::from_value(given.api.get(CLUSTER).unwrap()).unwrap();
    given.reconciled().await.unwrap();
    given.api.writes();
    operator::reconcile(Arc::new(stale), given.ctx.clone()).await.unwrap();
    assert_eq!(paths(&given.api.writes()), Vec::<String>::new());
}

#[tokio::test]
async fn what_drifted_is_put_right_and_nothing_else_is_written() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();
    given.api.writes();
    let mut service = given.api.get(SERVICE).unwrap();
    service["spec"]["ports"][0]["port"] = 1.into();
    given.api.put(SERVICE, service);
    given.reconciled().await.unwrap();
    assert_eq!(paths(&given.api.writes()), [format!("PATCH {SERVICE}")]);
    assert_eq!(given.api.get(SERVICE).unwrap()["spec"]["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn no_secret_is_written_anywhere_but_into_the_secret() {
    let given = Given::new(Scenario::Firewalled, &[]);
    given.reconciled().await.unwrap();
    for write in given.api.writes().iter().filter(|w| !w.path.ends_with("/secrets")) {
        assert!(!write.body.to_string().contains(KEY), "{}", write.path);
    }
}

#[tokio::test]
async fn the_report_is_written_also_when_the_engine_is_away() {
    let given = Given::new(Scenario::Away, &[]);
    let action = given.reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "EngineUnavailable");
    assert!(given.ctx.backoff.waits(UID), "{action:?}");
}

#[tokio::test]
async fn what_is_in_use_is_tried_again_with_back_off_whatever_the_tries_do_in_docker() {
    let given = Given::new(Scenario::Busy, &[]);
    let ctx = Arc::downgrade(&given.ctx);
    // What a step does in Docker wakes the cluster that it is taken for.
    *given.ctx.backend.meanwhile.lock().unwrap() = Some(Box::new(move || {
        assert!(!ctx.upgrade().unwrap().backoff.wakes(UID));
    }));
    for _ in 0..3 {
        let action = given.reconciled().await.unwrap();
        assert!(given.ctx.backoff.waits(UID), "{action:?}");
        assert_ne!(action, Action::requeue(Duration::ZERO));
    }
    assert_eq!(given.condition("Ready")["reason"], "Progressing");
}

#[tokio::test]
async fn what_happens_during_a_step_is_looked_at_after_it() {
    let given = Given::new(Scenario::Away, &[]);
    given.reconciled().await.unwrap();
    assert!(given.ctx.backoff.waits(UID));
    // Woken before its time, since Docker is back; and then somebody removes a container.
    *given.ctx.backend.scenario.lock().unwrap() = Scenario::Fine;
    let ctx = Arc::downgrade(&given.ctx);
    *given.ctx.backend.meanwhile.lock().unwrap() = Some(Box::new(move || {
        ctx.upgrade().unwrap().backoff.wakes(UID);
    }));
    assert_eq!(given.reconciled().await.unwrap(), Action::requeue(Duration::ZERO));
    *given.ctx.backend.meanwhile.lock().unwrap() = None;
    assert_ne!(given.reconciled().await.unwrap(), Action::requeue(Duration::ZERO));
}

#[tokio::test]
async fn the_report_is_written_also_when_publishing_fails() {
    let given = Given::new(Scenario::Fine, &[]);
    given.api.fail("POST", "/secrets");
    let error = given.reconciled().await.unwrap_err();
    assert_eq!(error.to_string(), "create Secret dev-kubeconfig in namespace team: it is broken");
    assert_eq!(given.condition("Ready")["status"], "True");
    assert_eq!(given.api.get(CLUSTER).unwrap()["status"]["kubeconfigSecretRef"], Value::Null);
}

#[tokio::test]
async fn an_invalid_spec_becomes_a_condition_with_every_field_at_once() {
    let given = Given::new(Scenario::Fine, &[]);
    given.cluster(json!({
        "version": "v1.36.1+k3s1",
        "servers": {"replicas": 1, "args": ["--token=x"], "env": [{"name": "K3S_URL", "value": "x"}]},
    }));
    given.reconciled().await.unwrap();
    let stalled = given.condition("Stalled");
    assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("InvalidSpec")));
    let message = stalled["message"].as_str().unwrap();
    assert!(
        message.contains("spec.servers.args[0]") && message.contains("spec.servers.env[0].name"),
        "{message}"
    );
    assert_eq!(events(&given.api.writes())[0].0, "InvalidSpec");
    assert!(!given.ctx.backoff.waits(UID), "only a changed spec can help, and its watch tells");
}

#[tokio::test]
async fn host_paths_are_denied_unless_a_setting_allows_them() {
    let spec = json!({
        "version": "v1.36.1+k3s1",
        "servers": {"volumes": [{"target": "/data", "hostPath": "/srv/data"}]},
    });
    let given = Given::new(Scenario::Fine, &[]);
    given.cluster(spec.clone()).reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "HostPathDenied");

    let given = Given::new(Scenario::Fine, &["--allow-host-path=/srv"]);
    given.cluster(spec).reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "Ready");
}

#[tokio::test]
async fn a_missing_reference_names_field_object_and_key() {
    let given = Given::new(Scenario::Fine, &[]);
    given.cluster(json!({"version": "v1.36.1+k3s1", "tokenSecretRef": {"name": "token", "key": "t"}}));
    given.reconciled().await.unwrap();
    let ready = given.condition("Ready");
    assert_eq!(ready["reason"], "ReferenceMissing");
    let expected =
        "spec.tokenSecretRef: Secret token does not exist in namespace team; create it with the key t";
    assert_eq!(ready["message"], expected);

    given.api.put(
        "/api/v1/namespaces/team/secrets/token",
        json!({"metadata": {"name": "token"}, "data": {"u": "eA=="}}),
    );
    given.reconciled().await.unwrap();
    assert!(given.condition("Ready")["message"].as_str().unwrap().contains("has no key t"));

    given.api.put(
        "/api/v1/namespaces/team/secrets/token",
        json!({"metadata": {"name": "token"}, "data": {"t": "eA=="}}),
    );
    given.reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "Ready");
    let values = given.ctx.backend.steps.lock().unwrap().last().unwrap().values.clone().unwrap();
    assert_eq!(values.0.values().next().unwrap().expose(), b"x");
}

#[tokio::test]
async fn objects_of_others_are_never_overwritten() {
    for path in [SECRET, SERVICE, SLICE] {
        let given = Given::new(Scenario::Fine, &[]);
        let name = path.rsplit('/').next().unwrap();
        let mut foreign = json!({"metadata": {"name": name, "namespace": "team", "uid": "theirs"}});
        if path == SLICE {
            foreign["addressType"] = "IPv4".into();
            foreign["endpoints"] = json!([]);
        }
        given.api.put(path, foreign.clone());
        given.reconciled().await.unwrap();
        assert_eq!(given.api.get(path).unwrap(), foreign);
        let stalled = given.condition("Stalled");
        assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("NameTaken")));
        assert!(stalled["message"].as_str().unwrap().contains(name), "{stalled}");
    }
}

#[tokio::test]
async fn what_a_former_cluster_of_the_name_has_left_is_taken_over() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();
    for path in [SECRET, SERVICE, SLICE] {
        let published = given.api.get(path).unwrap();

        // Given what Kubernetes has not yet removed,
        let mut left = published.clone();
        left["metadata"]["ownerReferences"][0]["uid"] = "of-the-former".into();
        left["metadata"]["labels"]["k3nest.dev/owner"] = "of-the-former".into();
        left["data"] = json!({});
        given.api.put(path, left.clone());
        given.reconciled().await.unwrap();

        // then it becomes this cluster's.
        assert_eq!(given.condition("Ready")["reason"], "Ready");
        let now = given.api.get(path).unwrap();
        assert_eq!(now["metadata"]["ownerReferences"], published["metadata"]["ownerReferences"], "{path}");
        assert_eq!(now["metadata"]["labels"], published["metadata"]["labels"]);
        assert_eq!(now["data"]["value"], published["data"]["value"]);

        // What somebody else has a hand in is not.
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "theirs"});
        left["metadata"]["ownerReferences"].as_array_mut().unwrap().push(theirs);
        given.api.put(path, left.clone());
        given.reconciled().await.unwrap();
        assert_eq!(given.condition("Ready")["reason"], "NameTaken");
        assert_eq!(given.api.get(path).unwrap(), left);
        given.api.put(path, published);
    }
}

#[tokio::test]
async fn where_pods_cannot_get_in_the_condition_says_so() {
    let given = Given::new(Scenario::Firewalled, &[]);
    given.reconciled().await.unwrap();
    assert!(given.api.get(SLICE).is_none() && given.api.get(SECRET).is_some());
    let available = given.condition("Available");
    assert_eq!(available["status"], "True");
    let message = available["message"].as_str().unwrap();
    assert!(
        message.contains("10.112.0.1:16443: connection refused") && message.contains("--publish-address"),
        "{message}"
    );
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_on_its_way_out() {
    let given = Given::new(Scenario::Fine, &[]);
    let going = json!({"metadata": {"name": "team", "deletionTimestamp": "2030-01-01T00:00:00Z"}});
    given.api.put("/api/v1/namespaces/team", going);
    given.reconciled().await.unwrap();
    let created: Vec<_> = given.api.writes().into_iter().filter(|w| w.method == "POST").collect();
    assert!(created.is_empty(), "{:?}", paths(&created));
}

#[tokio::test]
async fn deletion_removes_everything_and_lets_go() {
    let given = Given::new(Scenario::Fine, &[]);
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.finalizers(), json!([]));
    let removed = given.removed()[0].clone();
    assert_eq!((removed.uid.as_str(), removed.instance.as_str()), (UID, "instance"));
    assert_eq!(given.steps(), 0);
}

#[tokio::test]
async fn deletion_works_also_with_an_invalid_spec_and_while_paused() {
    let given = Given::new(Scenario::Fine, &[]);
    given.cluster(json!({"version": "v1.36.1+k3s1", "paused": true, "servers": {"args": ["--token=x"]}}));
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.finalizers(), json!([]));
}

#[tokio::test]
async fn deletion_waits_for_what_is_still_there() {
    let given = Given::new(Scenario::Sticky, &[]);
    given.deleted();
    assert!(given.reconciled().await.is_err());
    assert_eq!(given.finalizers(), json!([FINALIZER]));
    let ready = given.condition("Ready");
    assert_eq!(ready["reason"], "Deleting");
    assert!(ready["message"].as_str().unwrap().contains("k3nest-team-dev-data-12345678"));
    assert_eq!(given.api.get(CLUSTER).unwrap()["status"]["phase"], "Deleting");
}

#[tokio::test]
async fn deletion_waits_for_docker_and_says_so_once() {
    let given = Given::new(Scenario::Away, &[]);
    given.deleted();
    assert!(given.reconciled().await.is_err());
    assert_eq!(given.finalizers(), json!([FINALIZER]));
    assert_eq!(given.condition("Ready")["reason"], "EngineUnavailable");
    let told = events(&given.api.writes());
    assert_eq!(told.iter().filter(|(reason, _)| reason == "EngineUnavailable").count(), 1);

    assert!(given.reconciled().await.is_err());
    assert_eq!(paths(&given.api.writes()), Vec::<String>::new());
}

#[tokio::test]
async fn on_another_engine_nothing_is_removed_and_nothing_is_let_go() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();
    assert_eq!(given.api.get(CLUSTER).unwrap()["status"]["engineID"], ENGINE);
    *given.ctx.backend.engine.lock().unwrap() = "ENGINE-B".into();
    given.api.writes();
    given.deleted();
    for _ in 0..2 {
        assert!(given.reconciled().await.is_err());
        assert_eq!((given.finalizers(), given.removed()), (json!([FINALIZER]), vec![]));
    }
    let ready = given.condition("Ready");
    assert_eq!(ready["reason"], "EngineMismatch");
    let message = ready["message"].as_str().unwrap();
    for word in [ENGINE, "ENGINE-B", ABANDON_ANNOTATION] {
        assert!(message.contains(word), "{message}");
    }
    let told = events(&given.api.writes());
    assert_eq!(told.iter().filter(|(reason, _)| reason == "EngineMismatch").count(), 1, "{told:?}");

    // Until it is the engine again, or a person lets go
    given.changed(|c| c["metadata"]["annotations"] = json!({ABANDON_ANNOTATION: "true"}));
    given.reconciled().await.unwrap();
    assert_eq!((given.finalizers(), given.removed()), (json!([]), vec![]));
    let told = events(&given.api.writes());
    let (_, note) = told.iter().find(|(reason, _)| reason == "Abandoned").unwrap();
    assert!(note.contains("ENGINE-B") && note.contains(UID), "{note}");
}

#[tokio::test]
async fn back_on_its_engine_a_deletion_goes_on() {
    let given = Given::new(Scenario::Fine, &[]);
    given.changed(|c| c["status"] = json!({"engineID": ENGINE}));
    *given.ctx.backend.engine.lock().unwrap() = "ENGINE-B".into();
    assert!(given.deleted().reconciled().await.is_err());
    *given.ctx.backend.engine.lock().unwrap() = ENGINE.into();
    given.reconciled().await.unwrap();
    assert_eq!((given.finalizers(), given.removed().len()), (json!([]), 1));
}

#[tokio::test]
async fn an_abandoned_cluster_is_let_go_with_an_event() {
    for (scenario, said) in
        [(Scenario::Away, "could not be listed"), (Scenario::Sticky, "k3nest-team-dev-data-12345678")]
    {
        let given = Given::new(scenario, &[]);
        given.deleted().changed(|c| c["metadata"]["annotations"] = json!({ABANDON_ANNOTATION: "true"}));
        given.reconciled().await.unwrap();
        assert_eq!(given.finalizers(), json!([]));
        let told = events(&given.api.writes());
        let (_, note) = told.iter().find(|(reason, _)| reason == "Abandoned").unwrap();
        assert!(note.contains(said), "{note}");
    }
}

#[tokio::test]
async fn a_paused_cluster_is_left_alone_and_says_so() {
    let given = Given::new(Scenario::Fine, &[]);
    given.reconciled().await.unwrap();
    given.api.writes();
    given.changed(|c| c["spec"]["paused"] = true.into()).reconciled().await.unwrap();
    assert_eq!(given.steps(), 1);
    assert_eq!(given.condition("Paused")["status"], "True");
    assert_eq!(given.condition("Ready")["status"], "Unknown");
    assert!(paths(&given.api.writes()).contains(&format!("PATCH {CLUSTER}/status")));

    given.reconciled().await.unwrap();
    assert_eq!(paths(&given.api.writes()), Vec::<String>::new());
}
