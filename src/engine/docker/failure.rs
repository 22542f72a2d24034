//! Sorts what Docker says went wrong by what to do about it.
//!
//! Docker tells most failures apart by words only: the status of a taken port, a broken image and a
//! hanging storage driver is 500 alike. The words below are those of 20.10 to 28.

use std::{io::ErrorKind, time::Duration};

use bollard::errors::Error;

use crate::engine::EngineError;

/// A call, for messages.
pub(super) struct Call<'a> {
    verb: &'static str,
    kind: &'static str,
    name: &'a str,
}

impl<'a> Call<'a> {
    /// `verb` is done to `name`, which is a `kind`.
    pub(super) fn new(verb: &'static str, kind: &'static str, name: &'a str) -> Self {
        Self { verb, kind, name }
    }

    /// The call and its object, in words.
    pub(super) fn what(&self) -> String {
        [self.verb, self.kind, self.name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The call took longer than it may.
    pub(super) fn timed_out(&self, limit: Duration) -> EngineError {
        EngineError::TimedOut { what: self.what(), seconds: limit.as_secs() }
    }

    /// Docker answered, but not to the question.
    pub(super) fn refused(&self, message: impl Into<String>) -> EngineError {
        EngineError::Refused { what: self.what(), message: message.into() }
    }

    /// What `error` means for this call to the engine at `host`.
    pub(super) fn failed(&self, host: &str, error: Error) -> EngineError {
        let unavailable = |cause| EngineError::Unavailable { what: self.what(), cause };
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                self.answered(status_code, message.trim())
            }
            Error::DockerStreamError { error } => self.answered(500, error.trim()),
            Error::SocketNotFoundError(_) => unavailable(no_socket(host)),
            Error::RequestTimeoutError => unavailable("it accepts connections but does not answer".into()),
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::APIVersionParseError {} => {
                self.refused(format!("what answers at {host} does not speak Docker's API: {error}"))
            }
            error => unavailable(connection_cause(host, &error)),
        }
    }

    /// What Docker's answer means.
    fn answered(&self, status: u16, message: &str) -> EngineError {
        let lower = message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let what = self.what();
        let busy = |message: String| EngineError::Busy { what: self.what(), message };
        let message = message.to_owned();

        if says(&["port is already allocated", "ports are not available"])
            || (says(&["address already in use"]) && says(&["bind", "listen", "port"]))
        {
            return EngineError::PortTaken { what, message };
        }
        if says(&["address already in use"]) {
            // Without a port it is the container's own address that another one has.
            return busy(format!("another container has its pinned address: {message}"));
        }
        if says(&["only when connecting to networks with user configured subnets"]) {
            return EngineError::NoPinning { what, message };
        }
        if says(&["pool overlaps", "overlapping ip"]) {
            return EngineError::SubnetTaken { what, message };
        }
        match status {
            404 if says(&["no such image"]) => {
                EngineError::ImageUnavailable { image: self.missing(&message), message }
            }
            404 if matches!(self.verb, "create" | "start" | "join") && !says(&["no such", "not found"]) => {
                EngineError::Refused { what, message }
            }
            404 => EngineError::NotFound {
                what: format!("{} {}", self.verb, self.kind),
                name: self.missing(&message),
            },
            409 if says(&["already in use by container", "already exists", "must be unique"]) => {
                EngineError::NameTaken { kind: self.kind, name: self.name.into() }
            }
            409 => busy(message),
            400 if says(&["client version"]) => EngineError::Unavailable { what, cause: message },
            502..=504 => EngineError::Unavailable { what, cause: message },
            _ if says(&[
                "has active endpoints",
                "resource busy",
                "in progress",
                "did not receive an exit event",
            ]) =>
            {
                busy(message)
            }
            500 if says(&["context deadline exceeded", "transport is closing", "containerd.sock"]) => {
                EngineError::Unavailable { what, cause: format!("its containerd does not answer: {message}") }
            }
            _ => EngineError::Refused { what, message },
        }
    }

    /// The object that Docker says is not there, which need not be the one the call is about.
    fn missing(&self, message: &str) -> String {
        let after = |start: &str| message.find(start).map(|at| message[at + start.len()..].trim());
        if let Some((kind, name)) = after("No such ").and_then(|rest| rest.split_once(": ")) {
            return if kind == "image" || kind == self.kind { name.into() } else { format!("{kind} {name}") };
        }
        match message.split_once(" not found") {
            Some((object, _)) if object.starts_with("network ") => object.into(),
            _ => self.name.into(),
        }
    }
}

/// Whether the engine is gone, and may come back as another version.
pub(super) fn is_lost(error: &Error) -> bool {
    !matches!(
        error,
        Error::DockerResponseServerError { .. }
            | Error::DockerStreamError { .. }
            | Error::DockerContainerWaitError { .. }
            | Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
    )
}

/// Whether the engine was replaced by one that does not know the version agreed on.
pub(super) fn speaks_other_version(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 400, message } if message.contains("client version"))
}

fn no_socket(host: &str) -> String {
    format!(
        "there is no socket at {host}: is Docker running there? Start it, or say where it is with DOCKER_HOST"
    )
}

/// Why no connection came about, and what to do.
fn connection_cause(host: &str, error: &Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    // This variant passes itself off as its cause, whose own source is deeper still.
    let mut kind = if let Error::IOError { err } = error { Some(err.kind()) } else { None };
    loop {
        if let Some(io) = deepest.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => break,
        }
    }
    match kind {
        Some(ErrorKind::NotFound) => no_socket(host),
        Some(ErrorKind::PermissionDenied) => format!(
            "no permission to use {host}: add yourself to its group (sudo usermod -aG docker $USER, then log in again), \
             or run as root"
        ),
        Some(ErrorKind::ConnectionRefused) => format!("nothing listens at {host}: is Docker running there?"),
        _ => format!("{deepest} ({host})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(status: u16, message: &str) -> EngineError {
        Call::new("create", "container", "dev-server-0").answered(status, message)
    }

    fn start(status: u16, message: &str) -> EngineError {
        Call::new("start", "container", "4f5e").answered(status, message)
    }

    #[test]
    fn a_taken_port_is_known_by_all_its_words() {
        for message in [
            "driver failed programming external connectivity on endpoint x (1f): Bind for 0.0.0.0:16443 failed: port is \
             already allocated",
            "driver failed programming external connectivity on endpoint x (1f): Error starting userland proxy: listen \
             tcp4 0.0.0.0:16443: bind: address already in use",
            "failed to set up container networking: driver failed programming external connectivity on endpoint x: \
             failed to bind host port for 0.0.0.0:16443:10.0.0.2:6443/tcp: address already in use",
            "Ports are not available: exposing port TCP 0.0.0.0:16443 -> 0.0.0.0:0: listen tcp 0.0.0.0:16443",
        ] {
            assert!(matches!(start(500, message), EngineError::PortTaken { .. }), "{message}");
        }
    }

    #[test]
    fn a_taken_address_is_no_taken_port() {
        for message in
            ["Address already in use", "failed to set up container networking: Address already in use"]
        {
            let error = start(403, message);
            assert!(matches!(error, EngineError::Busy { .. }), "{error}");
            assert!(error.to_string().contains("pinned address"), "{error}");
        }
    }

    #[test]
    fn a_network_without_a_configured_subnet_is_known() {
        // No list and no inspection tells such a network from one with a configured subnet.
        let message = "user specified IP address is supported only when connecting to networks with user configured subnets";
        for error in [start(400, message), create(400, &format!("invalid endpoint settings:\n{message}"))] {
            assert!(matches!(error, EngineError::NoPinning { .. }), "{error}");
        }
    }

    #[test]
    fn overlapping_subnets() {
        let call = Call::new("create", "network", "n");
        for message in [
            "Pool overlaps with other one on this address space",
            "invalid pool request: Pool overlaps with other one on this address space",
            "cannot create network 1f (br-1f): conflicts with network 2e (br-2e): networks have overlapping IPv4",
        ] {
            assert!(matches!(call.answered(403, message), EngineError::SubnetTaken { .. }), "{message}");
        }
    }

    #[test]
    fn conflicts_are_names_or_time() {
        let taken = "Conflict. The container name \"/dev-server-0\" is already in use by container \"1f\". You have to \
                     remove (or rename) that container to be able to reuse that name.";
        assert_eq!(
            create(409, taken),
            EngineError::NameTaken { kind: "container", name: "dev-server-0".into() }
        );
        let network = Call::new("create", "network", "n").answered(409, "network with name n already exists");
        assert_eq!(network, EngineError::NameTaken { kind: "network", name: "n".into() });
        for (status, message) in [
            (409, "removal of container 1f is already in progress"),
            (409, "remove v: volume is in use - [1f]"),
            (409, "Container 1f is not running"),
            (403, "error while removing network: network n id 1f has active endpoints"),
        ] {
            let error = start(status, message);
            assert!(matches!(error, EngineError::Busy { .. }) && error.is_transient(), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            create(404, "No such image: a/b:1").to_string(),
            "image a/b:1 cannot be had: No such image: a/b:1"
        );
        assert_eq!(start(404, "No such container: 4f5e").to_string(), "start container: 4f5e does not exist");
        assert_eq!(
            start(404, "network n not found").to_string(),
            "start container: network n does not exist"
        );
        assert!(matches!(
            start(404, "OCI runtime create failed: unable to retrieve OCI runtime error"),
            EngineError::Refused { .. }
        ));
    }

    #[test]
    fn a_proxy_without_docker_behind_it_is_docker_away() {
        assert!(matches!(start(503, "upstream"), EngineError::Unavailable { .. }));
        assert!(matches!(start(403, "Forbidden"), EngineError::Refused { .. }));
    }

    #[test]
    fn a_denied_socket_says_what_to_do() {
        let error = Error::IOError { err: std::io::Error::from(ErrorKind::PermissionDenied) };
        let error = Call::new("ask", "", "").failed("unix:///x", error);
        assert!(error.to_string().contains("usermod -aG docker"), "{error}");
    }
}
