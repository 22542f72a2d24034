//! The k3nest binary.

use std::process::Command;

use super::{Finished, command::Started, run, run_with_input};

/// The release that the offline node image stands for.
pub const VERSION: &str = "v1.36.1+k3s1";

/// Images of an offline machine, used where the environment names no others.
const IMAGES: [(&str, &str); 2] =
    [("K3NEST_NODE_IMAGE", "k3nest-offline/node"), ("K3NEST_LOAD_BALANCER_IMAGE", "k3nest-offline/nginx:1")];

/// The image of nodes.
pub fn node_image() -> String {
    let (variable, default) = IMAGES[0];
    let repository = std::env::var(variable).unwrap_or(default.into());
    format!("{repository}:{}", VERSION.replace('+', "-"))
}

/// k3nest, with an environment.
#[derive(Clone, Debug, Default)]
pub struct Nest {
    env: Vec<(String, String)>,
}

impl Nest {
    /// With what this process has.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a variable more.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let built = env!("CARGO_BIN_EXE_k3nest").to_owned();
        let mut command = Command::new(std::env::var("K3NEST_BIN").unwrap_or(built));
        for (name, image) in IMAGES {
            if std::env::var_os(name).is_none() {
                command.env(name, image);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value))).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args))
    }

    /// Runs it with `input` on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Finished {
        run_with_input(&mut self.command(args), input.as_bytes())
    }

    /// Starts it.
    pub fn start(&self, args: &[&str]) -> Started {
        Started::new(&mut self.command(args))
    }
}

/// Runs k3nest to its end.
pub fn nest(args: &[&str]) -> Finished {
    Nest::new().run(args)
}
