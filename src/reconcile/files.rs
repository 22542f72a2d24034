//! The files of containers, resolved when they are written: only then is it known whether the
//! node's data volume holds a token already.

use rand::RngExt;

use crate::{
    engine::{Command, Engine, EngineError, FileSource, Result},
    k3s::{self, K3S_TOKEN_PATH, TOKEN_PATH},
    plan::{ContainerKind, ContainerWant, FileWant, Sensitive},
};

/// The files that a step writes.
pub struct StepFiles<'a, E> {
    /// Where to look for a token.
    pub engine: &'a E,
    /// The token the user gave.
    pub given: Option<Sensitive<Vec<u8>>>,
    /// Whether the cluster was Ready once, so that its token is not to be invented.
    pub initialised: bool,
}

impl<E: Engine> StepFiles<'_, E> {
    /// The token for the server in container `id`: the one in its data volume, which is what its
    /// etcd was made with; else the user's; else, for a cluster that never was, a new one.
    async fn token(&self, id: &str) -> Result<Sensitive<Vec<u8>>> {
        for path in [TOKEN_PATH, K3S_TOKEN_PATH] {
            if let Some(token) = self.engine.read_file(id, path).await?.filter(|t| !t.is_empty()) {
                return Ok(Sensitive::new(token.trim_ascii().to_vec()));
            }
        }
        match (&self.given, self.initialised) {
            (Some(given), _) => Ok(Sensitive::new(given.expose().trim_ascii().to_vec())),
            (None, false) => Ok(Sensitive::new(random_hex(32).into_bytes())),
            (None, true) => Err(EngineError::Refused {
                what: format!("start server {id}"),
                message: "its data volume holds no token, and a new one would not open its data; restore the volume, or delete the cluster and create it again".into(),
            }),
        }
    }
}

impl<E: Engine> FileSource for StepFiles<'_, E> {
    fn command(&self, want: &ContainerWant) -> Command {
        k3s::command(want)
    }

    async fn files(&self, id: &str, want: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(match &want.kind {
            ContainerKind::Server(config) => k3s::server_files(config, &self.token(id).await?),
            ContainerKind::LoadBalancer(config) => k3s::balancer_files(config),
        })
    }
}

/// For plans that create nothing.
pub struct NoFiles;

impl FileSource for NoFiles {
    fn command(&self, want: &ContainerWant) -> Command {
        k3s::command(want)
    }

    async fn files(&self, _id: &str, _want: &ContainerWant) -> Result<Vec<FileWant>> {
        Ok(Vec::new())
    }
}

/// `bytes` random bytes as hex.
pub fn random_hex(bytes: usize) -> String {
    let mut rng = rand::rng();
    (0..bytes).map(|_| format!("{:02x}", rng.random::<u8>())).collect()
}
