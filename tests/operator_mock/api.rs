//! A host API server that fits on a screen: objects by path, and a log of what was written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock;

/// A write that reached the server.
#[derive(Clone, Debug)]
pub struct Write {
    pub method: String,
    pub path: String,
    pub body: Value,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<Write>,
    failing: Vec<(&'static str, &'static str)>,
    version: u64,
}

/// The server; clones share its state.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// Starts it and gives a client to it.
    pub fn start() -> (Self, kube::Client) {
        let api = Self::default();
        let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        let server = api.clone();
        tokio::spawn(async move {
            while let Some((request, reply)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let patch = parts.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned());
                let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
                let (code, answer) = server.answer(parts.method.as_str(), parts.uri.path(), patch, body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                reply.send_response(Response::builder().status(code).body(answer).unwrap());
            }
        });
        (api, kube::Client::new(service, "default"))
    }

    /// Puts an object in place, without logging a write.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.into(), object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Answers every `method` whose path contains `part` with an internal error.
    pub fn fail(&self, method: &'static str, part: &'static str) {
        self.0.lock().unwrap().failing.push((method, part));
    }

    /// What was written since the last call.
    pub fn writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    fn answer(&self, method: &str, path: &str, patch: Option<String>, body: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        if method != "GET" {
            state.writes.push(Write { method: method.into(), path: path.into(), body: body.clone() });
        }
        if state.failing.iter().any(|(m, part)| *m == method && path.contains(part)) {
            return refusal(500, "InternalError", "it is broken");
        }
        state.version += 1;
        let version = state.version.to_string();
        match (method, patch.as_deref()) {
            ("GET", _) => match state.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => refusal(404, "NotFound", &format!("{path} not found")),
            },
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if state.objects.contains_key(&path) {
                    return refusal(409, "AlreadyExists", "already exists");
                }
                let mut object = body;
                object["metadata"]["resourceVersion"] = version.into();
                state.objects.insert(path, object.clone());
                (201, object)
            }
            ("PATCH", kind) => {
                let (path, status) = match path.strip_suffix("/status") {
                    Some(path) => (path, true),
                    None => (path, false),
                };
                let Some(object) = state.objects.get_mut(path) else {
                    return refusal(404, "NotFound", &format!("{path} not found"));
                };
                match kind {
                    Some("application/json-patch+json") => json_patch(object, &body),
                    Some("application/apply-patch+yaml") if status => {
                        object["status"] = body["status"].clone()
                    }
                    Some("application/merge-patch+json") => merge(object, &body),
                    other => panic!("{other:?} on {path}"),
                }
                object["metadata"]["resourceVersion"] = version.into();
                (200, object.clone())
            }
            other => panic!("{other:?} on {path}"),
        }
    }
}

fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (code, status)
}

/// As much of RFC 6902 as finalizers need.
fn json_patch(object: &mut Value, patch: &Value) {
    for operation in patch.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        match operation["op"].as_str().unwrap() {
            "test" => assert_eq!(object.pointer(path).unwrap_or(&Value::Null), &operation["value"]),
            "add" => object["metadata"]["finalizers"] = operation["value"].clone(),
            "remove" => {
                let index: usize = path.rsplit('/').next().unwrap().parse().unwrap();
                object["metadata"]["finalizers"].as_array_mut().unwrap().remove(index);
            }
            other => panic!("{other}"),
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}
