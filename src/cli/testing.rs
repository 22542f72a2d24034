//! As much of Docker as it takes to refuse a verb: who it is and what exists. It changes nothing, and
//! remembers what it was asked to.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use super::session::EngineArgs;
use crate::{
    api::{Identity, Role},
    plan::{LOAD_BALANCER_IMAGE, NODE_IMAGE},
};

/// ID of the engine.
pub const ENGINE: &str = "ENGINE";

/// The engine. It ends with the process.
pub struct FakeDocker {
    socket: PathBuf,
    changes: Arc<Mutex<Vec<String>>>,
}

impl FakeDocker {
    /// One that has an object of each role, of each of these clusters.
    pub fn with(objects: &[(&Identity, Role)]) -> Self {
        let of = |is: fn(Role) -> bool, entry: fn(&Identity, Role) -> Value| -> Vec<Value> {
            objects.iter().filter(|(_, role)| is(*role)).map(|(who, role)| entry(who, *role)).collect()
        };
        let is_container = |role| matches!(role, Role::Server | Role::Agent | Role::LoadBalancer);
        let is_network = |role| role == Role::Network;
        let is_volume = |role| matches!(role, Role::Data | Role::Volume | Role::UserVolume | Role::Record);
        let answers = Arc::new([
            ("/version", json!({"ApiVersion": "1.43", "MinAPIVersion": "1.12"})),
            ("/info", json!({"ID": ENGINE})),
            ("/containers/json", Value::Array(of(is_container, container))),
            ("/networks", Value::Array(of(is_network, network))),
            ("/volumes", json!({"Volumes": of(is_volume, volume), "Warnings": []})),
        ]);
        let socket = std::env::temp_dir().join(format!("k3nest-{}.sock", uuid::Uuid::new_v4()));
        let listener = UnixListener::bind(&socket).unwrap();
        let changes = Arc::new(Mutex::default());
        let noted = Arc::clone(&changes);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &*answers, &noted);
            }
        });
        Self { socket, changes }
    }

    /// What verbs are told to work with it.
    pub fn args(&self) -> EngineArgs {
        EngineArgs {
            docker_host: self.socket.to_str().map(str::to_owned),
            node_image: NODE_IMAGE.into(),
            load_balancer_image: LOAD_BALANCER_IMAGE.into(),
        }
    }

    /// What it was asked to change.
    pub fn changes(&self) -> Vec<String> {
        self.changes.lock().unwrap().clone()
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn name(who: &Identity, role: Role) -> String {
    who.object_name(&format!("{}-{}", who.name, role.as_str()))
}

fn container(who: &Identity, role: Role) -> Value {
    json!({
        "Id": name(who, role), "Names": [format!("/{}", name(who, role))], "State": "running",
        "Labels": who.labels(role), "Created": 1,
    })
}

fn network(who: &Identity, role: Role) -> Value {
    json!({"Id": name(who, role), "Name": name(who, role), "Labels": who.labels(role)})
}

fn volume(who: &Identity, role: Role) -> Value {
    json!({
        "Name": name(who, role), "Labels": who.labels(role), "Driver": "local", "Mountpoint": "",
        "Options": null, "Scope": "local",
    })
}

/// Answers one request.
fn serve(mut stream: UnixStream, answers: &[(&str, Value)], changes: &Mutex<Vec<String>>) {
    let mut head = vec![0; 65536];
    let read = stream.read(&mut head).unwrap_or_default();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default().trim_start_matches("/v1.43");
    if method != "GET" {
        changes.lock().unwrap().push(format!("{method} {path}"));
    }
    let known = answers.iter().find(|(known, _)| method == "GET" && *known == path);
    let (code, body) = match known {
        Some((_, body)) => ("200 OK", body.to_string()),
        None => ("500 Internal Server Error", json!({"message": "this is no Docker"}).to_string()),
    };
    let head = format!("HTTP/1.1 {code}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes());
}
