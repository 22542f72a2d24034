//! Images that scenarios build.

use std::{fs::File, io::Read, process::Command};

use super::{
    command::run_with_input,
    docker::{TOOLS, docker},
    pick,
};

/// An image of one scenario's own, removed when dropped.
pub struct Image(pub String);

impl Image {
    /// A new name; nothing exists yet.
    pub fn named(what: &str) -> Self {
        Self(format!("{}:dev", pick::name(what)))
    }

    /// Builds it anew: the workload image with other content. Returns its ID.
    pub fn build(&self, content: &str) -> String {
        let file = format!("FROM {TOOLS}\nLABEL e2e.content={content}\n");
        // The classic builder needs no plugin.
        let mut build = Command::new("docker");
        build.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", &self.0, "-"]);
        run_with_input(&mut build, file.as_bytes()).ok().trim().to_owned()
    }

    /// Makes it one with `megabytes` that no compression makes smaller.
    pub fn fill(&self, scratch: &pick::Scratch, megabytes: u64) {
        let mut noise = File::open("/dev/urandom").expect("it is there").take(megabytes << 20);
        let mut content = File::create(scratch.path("content")).expect("the temporary directory is writable");
        std::io::copy(&mut noise, &mut content).expect("the temporary directory has room");
        scratch.file("Dockerfile", &format!("FROM {TOOLS}\nCOPY content /content\n"));
        let mut build = Command::new("docker");
        build.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", &self.0, &scratch.path("")]);
        run_with_input(&mut build, b"").ok();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["rmi", "-f", &self.0]);
    }
}
