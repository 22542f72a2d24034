//! A Docker that a scenario may stop and kill: on a machine of its own, which is a network, a process
//! and a mount namespace with a copy-on-write view of the root file system (e2e/lib/machine).
//!
//! Everything lies in memory and in those namespaces: when the machine goes, dockerd, its containers,
//! mounts, addresses and files go with it, also where a scenario panics or is killed.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::{
    Finished, Nest,
    command::{Started, run},
    docker::{TOOLS, docker},
    nest::VERSION,
    pick::Scratch,
    within,
};

/// How long dockerd may take to answer, or to end with all its containers.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often an init system starts a service that fails, before it gives up.
const STARTS: usize = 5;

/// What dockerd writes, over all its starts.
const LOG: &str = "/var/log/dockerd.log";

/// A machine with Docker on it. Dropping it ends it.
pub struct Daemon {
    /// The program that holds the namespaces; it ends with its standard input.
    holder: Child,
    stdin: Option<ChildStdin>,
    /// Process 1 of the machine, as seen from here.
    init: u32,
    link: Link,
    /// How others' objects were when they were made.
    noted: Scratch,
}

/// How the machine and this one reach each other.
struct Link {
    /// The interface here.
    name: String,
    here: String,
    there: String,
}

impl Daemon {
    /// A machine whose Docker runs and has the offline images, and objects that are not k3nest's.
    pub fn start() -> Self {
        let daemon = Self::without_docker();
        daemon.configure();
        daemon.start_again();
        daemon.load_images();
        daemon.bystanders("make");
        daemon
    }

    fn without_docker() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/lib/machine");
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .arg(script)
            .args(shared_directories())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be run");
        let stdin = holder.stdin.take();
        let mut said = String::new();
        // Ends at the latest with the script.
        let _ = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut said);
        let init = children(holder.id()).first().copied();
        let (init, link, noted) = (init.unwrap_or_default(), Link::pick(), Scratch::new());
        let mut daemon = Self { holder, stdin, init, link, noted };
        if said.trim() != "ready" || daemon.init == 0 {
            panic!("no machine for a Docker of its own (are you root?): {:?}", daemon.holder.wait());
        }
        daemon.link.connect(daemon.init);
        daemon
    }

    /// What `k3nest up` has set up on this machine's Docker, where it had to.
    fn configure(&self) {
        let runtime: serde_json::Value =
            serde_json::from_str(&docker(&["info", "--format", "{{json .Runtimes}}"]).ok())
                .expect("docker prints JSON");
        let configuration = match runtime.get("k3nest") {
            Some(known) => serde_json::json!({"runtimes": {"k3nest": {"path": known["path"]}}}),
            None => serde_json::json!({}),
        };
        let write = format!("mkdir -p /etc/docker && echo '{configuration}' >/etc/docker/daemon.json");
        self.shell(&write).ok();
    }

    fn load_images(&self) {
        let node = format!("k3nest-offline/node:{}", VERSION.replace('+', "-"));
        let mut save = Command::new("docker")
            .args(["save", &node, "k3nest-offline/nginx:1", TOOLS])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker can be run");
        let mut load = Command::new("docker");
        load.args(["load", "-q"]);
        let mut load = self.enter(&load);
        let loaded = load.stdin(save.stdout.take().expect("piped")).output().expect("nsenter can be run");
        let saved = save.wait().expect("a child of ours");
        assert!(saved.success() && loaded.status.success(), "images were not loaded: {loaded:?}");
    }

    /// What is not k3nest's is as it was made, but for what stops and starts with Docker.
    #[track_caller]
    pub fn others_are_untouched(&self) {
        self.bystanders("lasting");
    }

    #[track_caller]
    fn bystanders(&self, verb: &str) {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/lib/bystanders"));
        script.env("DOCKER_HOST", format!("unix://{}", self.socket())).env_remove("DOCKER_CONTEXT");
        run(script.args([verb, &self.noted.path("bystanders")])).ok();
    }

    /// Starts dockerd as an init system does: with what a dead one left in its way cleared, and again
    /// if it ends. Returns how many starts it took.
    pub fn start_again(&self) -> usize {
        for start in 1..=STARTS {
            // Its pid file may name a process that is something else by now.
            self.shell(&format!("rm -f /run/docker.pid; setsid dockerd >>{LOG} 2>&1 </dev/null &")).ok();
            let answers = within(PATIENCE, "dockerd to answer or to end", || {
                if self.docker(&["version"]).code == 0 {
                    return Ok(true);
                }
                if self.running("dockerd") { Err(self.log_tail()) } else { Ok(false) }
            });
            if answers {
                return start;
            }
        }
        panic!("dockerd ended at each of {STARTS} starts: {}", self.log_tail());
    }

    /// Ends dockerd as an init system does, and waits until it is gone.
    pub fn terminate(&self) {
        self.door().kill("TERM");
    }

    /// Kills dockerd. Its containers go on, its pid file stays.
    pub fn kill9(&self) {
        self.door().kill("KILL");
    }

    /// Whether a process of that name lives on the machine.
    pub fn running(&self, name: &str) -> bool {
        self.door().running(name)
    }

    /// docker on the machine.
    pub fn docker(&self, args: &[&str]) -> Finished {
        let mut command = Command::new("docker");
        self.inside(command.args(args))
    }

    /// Runs a program on the machine to its end.
    pub fn inside(&self, command: &Command) -> Finished {
        run(&mut self.enter(command))
    }

    /// k3nest on the machine.
    pub fn nest(&self, nest: &Nest, args: &[&str], patience: Duration) -> Finished {
        Started::new(&mut self.enter(&nest.command(args))).wait(patience)
    }

    /// The command as one that runs on the machine.
    pub fn enter(&self, command: &Command) -> Command {
        self.door().enter(command)
    }

    /// The way in for those who start processes of their own.
    pub fn door(&self) -> Door {
        Door { init: self.init }
    }

    /// Docker's socket, as seen from here.
    pub fn socket(&self) -> String {
        format!("/proc/{}/root/run/docker.sock", self.init)
    }

    fn shell(&self, script: &str) -> Finished {
        self.door().shell(script)
    }

    /// The last lines that dockerd wrote.
    pub fn log_tail(&self) -> String {
        self.door().log_tail()
    }

    /// The address of this machine as the other sees it.
    pub fn here(&self) -> &str {
        &self.link.here
    }

    /// The address of the machine.
    pub fn there(&self) -> &str {
        &self.link.there
    }
}

/// The way into the machine.
#[derive(Clone, Debug)]
pub struct Door {
    init: u32,
}

impl Door {
    /// See [`Daemon::enter`].
    pub fn enter(&self, command: &Command) -> Command {
        self.nsenter(command, &["--net", "--mount", "--pid"])
    }

    /// See [`Daemon::kill9`].
    pub fn kill9(&self) {
        self.kill("KILL");
    }

    fn kill(&self, signal: &str) {
        self.shell(&format!("kill -{signal} $(cat /run/docker.pid)")).ok();
        within(PATIENCE, "dockerd to end", || match self.running("dockerd") {
            true => Err(self.log_tail()),
            false => Ok(()),
        });
    }

    fn running(&self, name: &str) -> bool {
        // Those that were killed and not yet buried have no command line.
        let script = format!(
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {name} ] && [ -n \"$(tr -d '\\0' <$p/cmdline 2>/dev/null)\" ] && exit 0; done; exit 1"
        );
        self.shell(&script).code == 0
    }

    fn shell(&self, script: &str) -> Finished {
        let mut command = Command::new("sh");
        run(&mut self.enter(command.args(["-c", script])))
    }

    fn log_tail(&self) -> String {
        self.shell(&format!("tail -n 15 {LOG}")).stdout
    }

    /// The command as one that uses the machine's network and files, and is a process of this one: it
    /// gets the signals that are sent to it.
    pub fn beside(&self, command: &Command) -> Command {
        self.nsenter(command, &["--net", "--mount"])
    }

    fn nsenter(&self, command: &Command, namespaces: &[&str]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.init.to_string()]).args(namespaces).arg("--");
        nsenter.arg(command.get_program()).args(command.get_args());
        // Unless it says otherwise, the Docker of the machine is meant.
        nsenter.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => nsenter.env(name, value),
                None => nsenter.env_remove(name),
            };
        }
        nsenter
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("--- the Docker that was killed: {}", self.docker(&["ps", "-a"]));
            eprintln!("--- its log ends with\n{}", self.log_tail());
        }
        // Process 1 ends, and takes everything in its namespaces with it.
        drop(self.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // Goes with the namespace, too, but that may take a moment.
        let _ = Command::new("ip").args(["link", "delete", &self.link.name]).stderr(Stdio::null()).status();
    }
}

impl Link {
    /// A pair of interfaces and a range that nobody has.
    fn pick() -> Self {
        let routes = run(Command::new("ip").args(["-o", "-4", "route", "show", "table", "all"])).ok();
        for _ in 0..1000 {
            let (third, fourth) = (rand::random::<u8>(), rand::random::<u8>() & 0xfc);
            if !routes.contains(&format!("10.99.{third}.")) {
                let address = |host: u8| format!("10.99.{third}.{}", fourth + host);
                let name = format!("k3nest-{:04x}", rand::random::<u16>());
                return Self { name, here: address(1), there: address(2) };
            }
        }
        panic!("no free range in 10.99.0.0/16");
    }

    fn connect(&self, init: u32) {
        let Self { name, here, there } = self;
        let pid = init.to_string();
        let ip = |args: &[&str]| run(Command::new("ip").args(args)).ok();
        ip(&["link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", &pid]);
        ip(&["address", "add", &format!("{here}/30"), "dev", name]);
        ip(&["link", "set", name, "up"]);
        let inside = |args: &[&str]| {
            run(Command::new("nsenter").args(["--target", &pid, "--net", "--", "ip"]).args(args)).ok()
        };
        inside(&["address", "add", &format!("{there}/30"), "dev", "uplink"]);
        inside(&["link", "set", "uplink", "up"]);
    }
}

/// Where scenarios write, and where the binary is: both may lie on a file system of their own.
fn shared_directories() -> Vec<PathBuf> {
    let binary = Nest::new().command(&[]).get_program().to_owned();
    let binary = std::fs::canonicalize(binary).expect("k3nest is built");
    let scratch = std::fs::canonicalize(std::env::temp_dir()).expect("there is a temporary directory");
    [Some(scratch.as_path()), binary.parent()].into_iter().flatten().map(Path::to_path_buf).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
