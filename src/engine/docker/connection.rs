//! Where Docker is, which version of its API is spoken there, and the bound around every call.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{BollardRequest, ClientVersion, errors::Error};

use super::{
    Docker,
    failure::{Call, is_lost, speaks_other_version},
    limits,
};
use crate::engine::{EngineError, Result};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// API of Docker 20.10, the oldest engine k3nest works with.
const OLDEST: usize = 41;

/// API of Docker 27. A fixed upper end: newer engines keep speaking it, and do then what they did
/// when this was written.
const NEWEST: usize = 47;

/// Bollard's own bound starts at the request and ends at the response's head, so it can tell
/// nothing about streams. Ours are around every call; this one only has to be longer than all.
const BEYOND_ALL: u64 = 3600;

pub(super) struct Connection {
    host: String,
    /// None until the version is agreed on, and again after a connection failed.
    client: Mutex<Option<bollard::Docker>>,
}

impl Connection {
    pub(super) fn new(host: Option<&str>) -> Result<Self> {
        let host = match host.map(str::trim).filter(|h| !h.is_empty()).unwrap_or(DEFAULT_HOST) {
            path if path.starts_with('/') => format!("unix://{path}"),
            host => host.trim_end_matches('/').to_owned(),
        };
        if !["unix://", "tcp://", "http://"].iter().any(|scheme| host.starts_with(scheme)) {
            return Err(EngineError::Refused {
                what: format!("connect to Docker at {host}"),
                message: "the address must start with unix://, tcp:// or http://; for a remote engine forward its \
                          socket (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and use unix:///tmp/docker.sock"
                    .into(),
            });
        }
        Ok(Self { host, client: Mutex::new(None) })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn known(&self) -> Option<bollard::Docker> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, client: Option<bollard::Docker>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    async fn client(&self) -> Result<bollard::Docker> {
        if let Some(client) = self.known() {
            return Ok(client);
        }
        let client = self.negotiate().await?;
        self.set(Some(client.clone()));
        Ok(client)
    }

    async fn negotiate(&self) -> Result<bollard::Docker> {
        let call = Call::new("connect to", "Docker at", &self.host);
        let version = match tokio::time::timeout(limits::QUESTION, async {
            self.open(OLDEST)?.version().await
        })
        .await
        {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => return Err(call.failed(&self.host, error)),
            Err(_) => return Err(call.timed_out(limits::QUESTION)),
        };
        let minor = |text: &Option<String>| text.as_deref().and_then(minor_of);
        let minor = agree(minor(&version.min_api_version), minor(&version.api_version))
            .map_err(|message| EngineError::Refused { what: call.what(), message })?;
        let client = self.open(minor).map_err(|error| call.failed(&self.host, error))?;
        // Bollard leaves the version out of the paths, which asks for the engine's newest.
        Ok(client.with_request_modifier(move |request| versioned(request, minor)))
    }

    fn open(&self, minor: usize) -> std::result::Result<bollard::Docker, Error> {
        let version = ClientVersion { major_version: 1, minor_version: minor };
        if self.host.starts_with("unix://") {
            bollard::Docker::connect_with_unix(&self.host, BEYOND_ALL, &version)
        } else {
            bollard::Docker::connect_with_http(&self.host, BEYOND_ALL, &version)
        }
    }
}

impl Docker {
    /// A client that has agreed on a version, for calls that return streams and for setting up a
    /// host, which needs more of Docker than clusters do.
    pub(crate) async fn client(&self) -> Result<bollard::Docker> {
        self.connection.client().await
    }

    /// One call, bounded by `limit`, with what goes wrong sorted.
    pub(super) async fn call<T, F>(
        &self,
        call: &Call<'_>,
        limit: Duration,
        work: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Error>>,
    {
        let client = self.client().await?;
        match tokio::time::timeout(limit, work(client)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(call, error)),
            Err(_) => Err(call.timed_out(limit)),
        }
    }

    /// Sorts what went wrong, and forgets what is known of the engine where it may have been
    /// replaced.
    pub(super) fn failed(&self, call: &Call<'_>, error: Error) -> EngineError {
        if is_lost(&error) || speaks_other_version(&error) {
            self.connection.set(None);
        }
        call.failed(self.host(), error)
    }
}

/// The version to speak with an engine that knows those from `oldest` to `newest`.
fn agree(oldest: Option<usize>, newest: Option<usize>) -> std::result::Result<usize, String> {
    match (oldest.unwrap_or(0), newest) {
        (_, None) => Err("what answers there is not a Docker engine".into()),
        (_, Some(newest)) if newest < OLDEST => Err(format!(
            "its API 1.{newest} is too old: k3nest needs 1.{OLDEST}, which is Docker 20.10, or newer"
        )),
        (oldest, _) if oldest > NEWEST => Err(format!(
            "it asks for API 1.{oldest} at least, and this k3nest speaks 1.{NEWEST}: update k3nest"
        )),
        (_, Some(newest)) => Ok(newest.min(NEWEST)),
    }
}

fn minor_of(version: &str) -> Option<usize> {
    version.strip_prefix("1.")?.parse().ok()
}

/// The request with the version in front of its path.
fn versioned(mut request: BollardRequest, minor: usize) -> BollardRequest {
    let uri = request.uri();
    let (Some(scheme), Some(authority), Some(path)) =
        (uri.scheme_str(), uri.authority(), uri.path_and_query())
    else {
        return request;
    };
    if path.as_str().starts_with("/v1.") {
        return request;
    }
    if let Ok(uri) = format!("{scheme}://{authority}/v1.{minor}{path}").parse() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_both_know_is_spoken() {
        assert_eq!(agree(Some(12), Some(41)), Ok(41));
        assert_eq!(agree(Some(24), Some(45)), Ok(45));
        assert_eq!(agree(Some(44), Some(99)), Ok(NEWEST));
        assert!(agree(Some(12), Some(40)).unwrap_err().contains("too old"));
        assert!(agree(Some(60), Some(70)).unwrap_err().contains("update k3nest"));
        assert!(agree(None, None).is_err());
    }

    #[test]
    fn an_address_that_cannot_work_says_what_to_do() {
        assert_eq!(Connection::new(Some("/run/d.sock")).unwrap().host(), "unix:///run/d.sock");
        assert_eq!(Connection::new(Some("tcp://10.0.0.1:2375/")).unwrap().host(), "tcp://10.0.0.1:2375");
        assert_eq!(Connection::new(Some("")).unwrap().host(), DEFAULT_HOST);
        let error = Connection::new(Some("ssh://me@there")).err().unwrap().to_string();
        assert!(error.contains("ssh -L"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_socket_says_what_to_do() {
        let docker = Docker::connect(Some("unix:///nowhere/docker.sock")).unwrap();
        let error = crate::engine::Engine::info(&docker).await.unwrap_err();
        assert!(matches!(error, EngineError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("is Docker running"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_says_so() {
        let socket = std::env::temp_dir().join(format!("k3nest-{}.sock", uuid::Uuid::new_v4()));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let docker = Docker::connect(socket.to_str()).unwrap();
        let error = crate::engine::Engine::info(&docker).await.unwrap_err();
        std::fs::remove_file(socket).unwrap();
        assert!(error.to_string().contains("nothing listens"), "{error}");
    }

    /// An engine that remembers the paths it was asked for.
    async fn fake_engine(
        socket: std::path::PathBuf,
        api: &'static str,
    ) -> tokio::sync::mpsc::Receiver<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let (paths, asked) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                paths.send(head.split(' ').nth(1).unwrap_or_default().to_owned()).await.unwrap();
                let body = format!(r#"{{"ApiVersion":"{api}","MinAPIVersion":"1.12","ID":"fake"}}"#);
                let head =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        asked
    }

    #[tokio::test]
    async fn every_call_names_the_version_agreed_on() {
        let socket = std::env::temp_dir().join(format!("k3nest-{}.sock", uuid::Uuid::new_v4()));
        let mut asked = fake_engine(socket.clone(), "1.43").await;
        let docker = Docker::connect(socket.to_str()).unwrap();
        assert_eq!(crate::engine::Engine::info(&docker).await.unwrap().id, "fake");
        assert_eq!(asked.recv().await.unwrap(), "/version");
        assert_eq!(asked.recv().await.unwrap(), "/v1.43/info");
        std::fs::remove_file(socket).unwrap();
    }
}
