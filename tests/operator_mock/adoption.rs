//! Resources that were created again, and adopt what their former uid left in Docker.

use k3nest::{
    api::{ADOPT_ANNOTATION, FINALIZER, Identity, Role, STANDALONE},
    plan::{Keeper, Volume},
};
use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};

use crate::{CLUSTER, Given, SECRET, SERVICE, SLICE, UID, backend::Scenario, events, paths};

const FORMER: &str = "87654321-9abc-4def-8000-000000000000";

fn identity(instance: &str, uid: &str, name: &str) -> Identity {
    Identity { instance: instance.into(), uid: uid.into(), namespace: "team".into(), name: name.into() }
}

fn former() -> Identity {
    identity("a host cluster that is gone", FORMER, "dev")
}

fn record(of: &Identity) -> Volume {
    Volume { name: of.object_name("dev-record-1"), labels: of.labels(Role::Record) }
}

/// A cluster with the annotation, on an engine that holds `records`.
fn annotated(scenario: Scenario, wanted: &str, records: Vec<Volume>) -> Given {
    let given = Given::new(scenario, &[]);
    *given.ctx.backend.records.lock().unwrap() = records;
    given.changed(|c| c["metadata"]["annotations"] = json!({ADOPT_ANNOTATION: wanted}));
    given
}

impl Given {
    /// Under which identity the last step was taken, and whether it was to do anything.
    fn last_step(&self) -> (Identity, bool) {
        let steps = self.ctx.backend.steps.lock().unwrap();
        let last = steps.last().expect("a step");
        (last.identity.clone(), last.values.is_ok())
    }

    fn is_known_beside(&self, others: Vec<Value>) {
        let (store, mut writer) = reflector::store();
        let own = self.api.get(CLUSTER).unwrap();
        for object in others.into_iter().chain([own]) {
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(object).unwrap()));
        }
        self.ctx.know(store);
    }
}

#[tokio::test]
async fn the_former_objects_are_this_clusters() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.is_known_beside(vec![]);
    given.reconciled().await.unwrap();
    assert_eq!(given.last_step(), (former(), true));

    // What is published belongs to the resource as it is now
    for path in [SECRET, SERVICE, SLICE] {
        let metadata = given.api.get(path).unwrap()["metadata"].clone();
        assert_eq!(metadata["ownerReferences"][0]["uid"], UID, "{path}");
        assert_eq!(metadata["labels"]["k3nest.dev/owner"], UID, "{path}");
    }
    let adopted = given.condition("Adopted");
    assert_eq!((&adopted["status"], &adopted["reason"]), (&json!("True"), &json!("Adopted")));
    assert_eq!(given.condition("Ready")["status"], "True");
    let told = events(&given.api.writes());
    let (_, note) = told.iter().find(|(reason, _)| reason == "Adopted").expect("an Event");
    assert!(note.contains(FORMER) && note.contains(ADOPT_ANNOTATION), "{note}");

    // Once
    given.reconciled().await.unwrap();
    assert_eq!(paths(&given.api.writes()), Vec::<String>::new());
}

#[tokio::test]
async fn deletion_removes_what_was_adopted() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.reconciled().await.unwrap();
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.removed(), [identity("instance", UID, "dev"), former()]);
    assert_eq!(given.finalizers(), json!([]));
}

#[tokio::test]
async fn deletion_spares_what_was_only_asked_for() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.removed(), [identity("instance", UID, "dev")]);
    assert_eq!(given.finalizers(), json!([]));
}

#[tokio::test]
async fn deletion_waits_for_what_was_adopted() {
    let given = annotated(Scenario::Sticky, FORMER, vec![record(&former())]);
    given.reconciled().await.unwrap();
    given.deleted();
    assert!(given.reconciled().await.is_err());
    assert_eq!(given.finalizers(), json!([FINALIZER]));
}

#[tokio::test]
async fn deletion_finds_what_was_adopted_also_without_its_record() {
    let given = annotated(Scenario::Fine, FORMER, vec![]);
    let others = [identity("x", FORMER, "other"), identity(STANDALONE, FORMER, "dev")];
    given.ctx.backend.owners.lock().unwrap().extend(others.into_iter().chain([former()]));
    given.reconciled().await.unwrap();
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.removed(), [identity("instance", UID, "dev"), former()]);

    // And where nothing is left of it, it is gone
    let given = annotated(Scenario::Fine, FORMER, vec![]);
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.finalizers(), json!([]));
}

#[tokio::test]
async fn what_may_not_be_adopted_is_said_and_left_alone() {
    let own = identity("instance", UID, "dev");
    for (wanted, records, reason, said) in [
        ("dev", vec![record(&former())], "AdoptionInvalid", "is not a uid"),
        (FORMER, vec![], "AdoptionNotFound", "k3nest prune"),
        (FORMER, vec![record(&identity("x", FORMER, "prod"))], "AdoptionMismatch", "team/prod"),
        (FORMER, vec![record(&identity(STANDALONE, FORMER, "dev"))], "AdoptionConflict", "command line"),
        (FORMER, vec![record(&former()), record(&own)], "AdoptionConflict", "of its own"),
    ] {
        let given = annotated(Scenario::Fine, wanted, records);
        given.reconciled().await.unwrap();
        assert_eq!(given.last_step(), (own.clone(), false), "{reason}: a step that does nothing but report");
        for type_ in ["Stalled", "Adopted", "Ready"] {
            assert_eq!(given.condition(type_)["reason"], reason, "{type_}");
        }
        assert_eq!(given.condition("Adopted")["status"], "False");
        let message = given.condition("Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said) && message.contains(ADOPT_ANNOTATION), "{message}");
        assert!(given.api.get(SECRET).is_none());

        // And deletion takes nothing but its own
        given.deleted().reconciled().await.unwrap();
        assert_eq!(given.removed(), std::slice::from_ref(&own), "{reason}");
        assert_eq!(given.finalizers(), json!([]));
    }
}

#[tokio::test]
async fn a_cluster_that_somebody_has_is_not_adopted() {
    let other = |uid: &str, change: fn(&mut Value)| {
        let mut object = json!({
            "apiVersion": "k3nest.dev/v1alpha1", "kind": "K3sCluster",
            "metadata": {"name": "other", "namespace": "team", "uid": uid, "resourceVersion": "1"},
            "spec": {"version": "v1.36.1+k3s1"},
        });
        change(&mut object);
        object
    };
    const THIRD: &str = "11111111-9abc-4def-8000-000000000000";
    let says_so = |c: &mut Value| c["metadata"]["annotations"] = json!({ADOPT_ANNOTATION: FORMER});
    let has = |c: &mut Value| {
        c["metadata"]["annotations"] = json!({ADOPT_ANNOTATION: FORMER});
        let adopted = json!({
            "type": "Adopted", "status": "True", "reason": "Adopted", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        });
        c["status"] = json!({"conditions": [adopted]});
    };
    for (what, rival, refused) in [
        ("has that uid", other(FORMER, |_| ()), true),
        ("has adopted it", other(THIRD, has), true),
        ("says that it would", other(THIRD, says_so), false),
        ("is another", other(THIRD, |_| ()), false),
    ] {
        let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
        given.is_known_beside(vec![rival]);
        given.reconciled().await.unwrap();
        let reason = if refused { "AdoptionConflict" } else { "Adopted" };
        assert_eq!(given.condition("Adopted")["reason"], reason, "{what}");
        given.deleted().reconciled().await.unwrap();
        assert_eq!(given.removed().contains(&former()), !refused, "{what}");
    }
}

#[tokio::test]
async fn what_somebody_else_has_adopted_does_not_go_with_its_first_owner() {
    let given = Given::new(Scenario::Fine, &[]);
    let keeper = Keeper { instance: "another host cluster".into(), uid: FORMER.into() };
    given.ctx.backend.keepers.lock().unwrap().insert(UID.into(), keeper);
    given.deleted().reconciled().await.unwrap();
    assert_eq!(given.removed(), []);
    assert_eq!(given.finalizers(), json!([]));
    let told = events(&given.api.writes());
    let (_, note) = told.iter().find(|(reason, _)| reason == "LetGo").expect("an Event");
    assert!(note.contains(FORMER) && note.contains("another host cluster"), "{note}");
}

#[tokio::test]
async fn without_its_annotation_an_adopted_cluster_waits_for_it() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.reconciled().await.unwrap();
    given.changed(|c| c["metadata"]["annotations"] = json!({}));
    given.reconciled().await.unwrap();
    assert_eq!(given.last_step(), (identity("instance", UID, "dev"), false), "nothing but a report");
    let ready = given.condition("Ready");
    assert_eq!(ready["reason"], "AdoptionConflict");
    assert!(ready["message"].as_str().unwrap().contains(&format!("{ADOPT_ANNOTATION}: {FORMER}")), "{ready}");
    assert_eq!(given.condition("Adopted")["status"], "True", "it tells what to put back");

    given.changed(|c| c["metadata"]["annotations"] = json!({ADOPT_ANNOTATION: FORMER}));
    given.reconciled().await.unwrap();
    assert_eq!(given.last_step(), (former(), true));
    assert_eq!(given.condition("Ready")["status"], "True");
}

#[tokio::test]
async fn on_another_engine_an_adopted_cluster_stays_one() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.reconciled().await.unwrap();
    *given.ctx.backend.engine.lock().unwrap() = "ENGINE-B".into();
    given.ctx.backend.records.lock().unwrap().clear();
    given.reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "EngineMismatch");
    assert_eq!(given.condition("Adopted")["status"], "True");
}

#[tokio::test]
async fn an_adopted_cluster_without_its_record_is_still_looked_after() {
    let given = annotated(Scenario::Fine, FORMER, vec![]);
    given.ctx.backend.owners.lock().unwrap().push(former());
    given.reconciled().await.unwrap();
    assert_eq!(given.last_step(), (former(), true));
}

#[tokio::test]
async fn while_docker_is_away_an_adopted_cluster_stays_one() {
    let given = annotated(Scenario::Fine, FORMER, vec![record(&former())]);
    given.reconciled().await.unwrap();
    *given.ctx.backend.scenario.lock().unwrap() = Scenario::Away;
    given.reconciled().await.unwrap();
    assert_eq!(given.condition("Ready")["reason"], "EngineUnavailable");
    assert_eq!(given.condition("Adopted")["status"], "True");
    given.deleted();
    assert!(given.reconciled().await.is_err());
    assert_eq!(given.finalizers(), json!([FINALIZER]));
}

#[tokio::test]
async fn without_the_annotation_nothing_is_asked_and_nothing_said() {
    let given = annotated(Scenario::Fine, UID, vec![]);
    given.reconciled().await.unwrap();
    let status = given.api.get(CLUSTER).unwrap()["status"].to_string();
    assert!(!status.contains("Adopt"), "its own uid is nobody to adopt: {status}");
    assert_eq!(given.last_step(), (identity("instance", UID, "dev"), true));
}
