//! Tokens and keys are in the cluster's volumes and nowhere else.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::harness::{
    Story,
    docker::{docker, inspect, inspected},
    nest::nest,
};

use super::life::Wish;

/// Looks for every secret of the cluster in everything that can be read without entering its
/// volumes. `said` is what the first apply printed.
pub fn are_nowhere(story: &Story, wish: &Wish, said: &str) {
    let cluster = &wish.cluster;
    let needles = needles(wish);
    let mut haystacks = vec![("the first apply".to_owned(), said.to_owned())];
    for (kind, name) in cluster.all_objects() {
        let mut text = inspect(kind, &[&name]);
        if name == cluster.server() {
            // The one documented exception: an env value from a Secret is in the container's
            // environment, for whoever holds the Docker socket.
            let env = format!("E2E_SECRET={}", wish.in_env);
            let facts = inspected(kind, &name);
            let documented =
                facts["Config"]["Env"].as_array().is_some_and(|all| all.contains(&Value::from(&*env)));
            assert!(documented, "the variable is missing in {name}");
            text = text.replacen(&env, "", 1);
        }
        haystacks.push((format!("docker inspect of {kind} {name}"), text));
        if kind == "container" {
            let logs = docker(&["logs", &name]);
            haystacks.push((format!("the log of {name}"), logs.stdout + &logs.stderr));
        }
    }
    let file = wish.file();
    for words in [
        &["get", "clusters", "-o", "json"][..],
        &["get", "clusters", "-o", "yaml"],
        &["get", "nodes", "-o", "json"],
        &["diff", "-f", &file],
        &["apply", "-f", &file],
    ] {
        let finished = nest(words);
        haystacks.push((words.join(" "), finished.stdout + &finished.stderr));
    }
    for (place, text) in &haystacks {
        for (what, needle) in &needles {
            assert!(!text.contains(needle), "{place} shows {what}");
        }
    }
    story.tell(&format!("{} secrets are in none of {} places", needles.len(), haystacks.len()));
}

/// The secrets, in every form in which they might be shown.
fn needles(wish: &Wish) -> Vec<(&'static str, String)> {
    let cluster = &wish.cluster;
    let kubeconfig: Value =
        serde_saphyr::from_str(&cluster.verb(&["kubeconfig", "get"]).ok()).expect("it is YAML");
    let key = kubeconfig["users"][0]["user"]["client-key-data"].as_str().expect("a client key").to_owned();
    let pem = String::from_utf8(BASE64_STANDARD.decode(&key).expect("base64")).expect("PEM");
    let line = pem.lines().nth(1).expect("PEM has lines").to_owned();
    // As a tar archive; the text in it is plain.
    let path = format!("{}:/var/lib/rancher/k3s/server/token", cluster.server());
    let archive = docker(&["cp", "-L", &path, "-"]).ok();
    let at = archive.find("K10").expect("k3s has written its token");
    let full: String = archive[at..].chars().take_while(|c| c.is_ascii_graphic()).collect();
    assert!(full.ends_with(&wish.token), "the cluster was made with another token than the Secret's");
    vec![
        ("the token", wish.token.clone()),
        ("the token in base64", BASE64_STANDARD.encode(&wish.token)),
        ("k3s's own token", full),
        ("the value of an env from a Secret", wish.in_env.clone()),
        ("the content of a file from a Secret", wish.in_file.clone()),
        ("the client key", line),
        ("the client key in base64", key[..64].to_owned()),
    ]
}
