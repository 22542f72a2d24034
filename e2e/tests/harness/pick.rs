//! Names, ports and ranges that nobody else on this machine uses: other test runs and other people
//! share the Docker host.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    sync::Mutex,
};

use super::docker::docker;

/// Below the ports that the kernel gives to outgoing connections, above those of k3nest's own range.
const PORTS: std::ops::Range<u16> = 19000..30000;

/// A name such as e2e-life-3f9a, short enough for a cluster.
pub fn name(what: &str) -> String {
    format!("e2e-{what}-{:04x}", rand::random::<u16>())
}

/// A port that is free for TCP and UDP, given out once in a run.
pub fn port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no panic while it is held");
    for _ in 0..1000 {
        let port = rand::random_range(PORTS);
        let free = TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok();
        if free && given.insert(port) {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Prefix (first three numbers) of a /24 outside k3nest's own pool that no Docker network has.
pub fn subnet() -> String {
    static GIVEN: Mutex<BTreeSet<u8>> = Mutex::new(BTreeSet::new());
    let networks = docker(&["network", "ls", "-q"]).ok();
    let ids: Vec<&str> = networks.split_whitespace().collect();
    // One that goes between the two calls is no failure.
    let used = docker(&[&["network", "inspect"], ids.as_slice()].concat()).stdout;
    let mut given = GIVEN.lock().expect("no panic while it is held");
    for _ in 0..1000 {
        let third = rand::random::<u8>();
        let prefix = format!("10.98.{third}");
        if !used.contains(&format!("{prefix}.")) && given.insert(third) {
            return prefix;
        }
    }
    panic!("no free range in 10.98.0.0/16");
}

/// An empty directory of this scenario's own, removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("k3nest-e2e-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("the temporary directory is writable");
        path.to_string_lossy().into_owned()
    }

    /// The path of a file that need not exist.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
