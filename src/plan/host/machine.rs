//! What a probe has read of the Docker host's kernel.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::plan::parse_routes;

/// The script of the probe, for the shell of the nodes' image.
pub const PROBE: &str = include_str!("probe.sh");

/// What a probe has read. None, or empty, is what could not be read, and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Ranges that the host itself routes, without the default route.
    pub routes: Vec<Ipv4Net>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of it that could be used without swapping.
    pub memory_available: Option<u64>,
    /// Bytes of the filesystem that has Docker's data.
    pub disk: Option<u64>,
    /// Bytes that are free there for what is not root.
    pub disk_free: Option<u64>,
    /// Values of /proc/sys by path below it.
    pub sysctls: BTreeMap<String, u64>,
    /// Files that are open.
    pub open_files: Option<u64>,
    /// Processes and threads there are.
    pub tasks: Option<u64>,
    /// cgroup v1's controllers, and whether the kernel has them switched on.
    pub v1_controllers: BTreeMap<String, bool>,
    /// cgroup v2's controllers, as they reach a container.
    pub v2_controllers: Option<BTreeSet<String>>,
    /// Filesystems that the kernel knows now.
    pub filesystems: BTreeSet<String>,
    /// Those of the modules asked for that are there, loaded or built in.
    pub modules: BTreeSet<String>,
    /// Whether the kernel can load modules; None where nothing was read at all.
    pub loads_modules: Option<bool>,
    /// Options of the kernel, false for one that is not set; empty where it does not tell.
    pub options: BTreeMap<String, bool>,
    /// What a security module calls the processes of a container.
    pub label: Option<String>,
    /// SELinux's mode, where it can be seen.
    pub enforcing: Option<bool>,
}

impl Machine {
    /// From what [`PROBE`] wrote. Whatever is not as expected is left out.
    pub fn parse(text: &str) -> Self {
        let mut machine = Self::default();
        let mut routes = String::new();
        for (file, line) in text.lines().filter_map(split) {
            match file {
                "/proc/net/route" => routes.extend([line, "\n"]),
                _ => machine.learn(file, line),
            }
        }
        machine.routes = parse_routes(&routes);
        // One that was read at all and has no list of modules can load none.
        let read = !machine.filesystems.is_empty();
        machine.loads_modules = machine.loads_modules.or(read.then_some(false));
        machine
    }

    fn learn(&mut self, file: &str, line: &str) {
        let mut words = line.split_whitespace();
        let number = |nth: usize| line.split_whitespace().nth(nth).and_then(|word| word.parse().ok());
        match file {
            "/proc/meminfo" => {
                let bytes = number(1).map(|kilobytes: u64| kilobytes << 10);
                match words.next() {
                    Some("MemTotal:") => self.memory = bytes,
                    Some("MemAvailable:") => self.memory_available = bytes,
                    _ => {}
                }
            }
            "/proc/cgroups" if !line.starts_with('#') => {
                if let (Some(name), Some(enabled)) = (words.next(), number(3)) {
                    self.v1_controllers.insert(name.to_owned(), enabled == 1);
                }
            }
            "/sys/fs/cgroup/cgroup.controllers" => {
                self.v2_controllers.get_or_insert_default().extend(words.map(str::to_owned));
            }
            "/proc/filesystems" => self.filesystems.extend(words.next_back().map(str::to_owned)),
            "/proc/loadavg" => {
                self.tasks = words.nth(3).and_then(|tasks| tasks.split_once('/')?.1.parse().ok());
            }
            "/proc/self/attr/current" => {
                let label = line.trim_end_matches('\0').trim();
                self.label = (!label.is_empty()).then(|| label.to_owned());
            }
            "/proc/sys/fs/file-nr" => {
                self.open_files = number(0);
                self.sysctls.extend(number(2).map(|max| ("fs/file-max".to_owned(), max)));
            }
            "/proc/modules" => self.loads_modules = Some(true),
            "/sys/module" => self.modules.extend(words.next().map(str::to_owned)),
            "/sys/fs/selinux/enforce" => self.enforcing = number(0).map(|mode| mode == 1),
            "/proc/config.gz" => self.options.extend(option(line)),
            // The first line is the heading.
            "df" if line.contains('%') => {
                self.disk = number(1).map(|kilobytes| kilobytes << 10);
                self.disk_free = number(3).map(|kilobytes| kilobytes << 10);
            }
            _ => {
                if let (Some(name), Some(value)) = (file.strip_prefix("/proc/sys/"), number(0)) {
                    self.sysctls.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// A value of /proc/sys.
    pub fn sysctl(&self, path: &str) -> Option<u64> {
        self.sysctls.get(path).copied()
    }
}

/// `file:line`.
fn split(line: &str) -> Option<(&str, &str)> {
    line.trim_end_matches('\r').split_once(':')
}

/// A line of a kernel's configuration.
fn option(line: &str) -> Option<(String, bool)> {
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        return Some((rest.strip_suffix(" is not set")?.to_owned(), false));
    }
    let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    Some((name.to_owned(), value != "n"))
}
