//! Tokens and keys are in volumes and in the kubeconfig Secret, and nowhere else.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    harness::{
        Story,
        docker::{docker, inspect},
    },
    host::host,
    tenant::Tenant,
};

/// Looks for every secret of the cluster in everything that is shown to people who may read neither
/// its volumes nor Secrets.
pub fn are_nowhere(story: &Story, tenant: &Tenant, token: &str) {
    let needles = needles(tenant, token);
    let mut places = Vec::new();
    for (kind, name) in tenant.all_objects() {
        places.push((format!("docker inspect of {kind} {name}"), inspect(kind, &[&name])));
        if kind == "container" {
            let logs = docker(&["logs", &name]);
            places.push((format!("the log of {name}"), logs.stdout + &logs.stderr));
        }
    }
    places.push(("the operator's log".into(), host().operator_log()));
    for words in [
        &["get", "k3scluster", "life", "-o", "json", "--show-managed-fields"][..],
        &["get", "events", "-o", "json"],
        &["get", "service,endpointslice", "-o", "json"],
        &["describe", "k3scluster", "life"],
    ] {
        places.push((format!("kubectl {}", words.join(" ")), tenant.run(words).ok()));
    }
    let operator = ["get", "deployment,pod", "-o", "json"];
    places.push(("the operator's Pod".into(), host().run(crate::host::NAMESPACE, &operator).ok()));
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place} is empty");
        for (what, needle) in &needles {
            assert!(!text.contains(needle), "{place} shows {what}");
        }
    }
    story.tell(&format!("{} secrets are in none of {} places", needles.len(), places.len()));
}

/// The secrets, in every form in which they might be shown.
fn needles(tenant: &Tenant, token: &str) -> Vec<(&'static str, String)> {
    let key = tenant.secret("tls.key");
    let line = key.lines().nth(1).expect("PEM has lines").to_owned();
    // As a tar archive; the text in it is plain.
    let path = format!("{}:/var/lib/rancher/k3s/server/token", tenant.server());
    let archive = docker(&["cp", "-L", &path, "-"]).ok();
    let at = archive.find("K10").expect("k3s has written its token");
    let full: String = archive[at..].chars().take_while(char::is_ascii_graphic).collect();
    assert!(full.ends_with(token), "the cluster was made with another token than the Secret's");
    vec![
        ("the token", token.to_owned()),
        ("the token in base64", BASE64_STANDARD.encode(token)),
        ("k3s's own token", full),
        ("the client key", line),
        ("the client key in base64", BASE64_STANDARD.encode(&key)[..64].to_owned()),
    ]
}
