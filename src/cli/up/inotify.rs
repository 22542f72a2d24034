//! The kernel's inotify limits: what runs out first on a machine with many nodes.
//!
//! A node that does nothing holds 12 instances, and the kernel's default of 128 is used up at about
//! ten nodes; what follows are crash loops that name something else. `up` raises the limits where
//! it may; the operator only ever names them.

use std::{fs, path::Path};

use super::{
    docker::{is_local, is_root},
    error::Say,
};

/// What is wanted: the file under /proc/sys, its name for sysctl, the least value.
const LIMITS: [(&str, &str, u64); 2] = [
    ("fs/inotify/max_user_instances", "fs.inotify.max_user_instances", 8192),
    ("fs/inotify/max_user_watches", "fs.inotify.max_user_watches", 524_288),
];

/// Raises limits that are too low, or warns with the command that would. Never fails: clusters of a
/// few nodes run without it.
pub fn raise_inotify_limits(say: &Say<'_>) {
    if !is_local() {
        return;
    }
    raise_at(Path::new("/proc/sys"), is_root(Path::new("/proc")), say);
}

fn raise_at(sys: &Path, may_write: bool, say: &Say<'_>) {
    for (file, name, least) in LIMITS {
        let path = sys.join(file);
        let Some(value) = fs::read_to_string(&path).ok().and_then(|v| v.trim().parse::<u64>().ok()) else {
            continue;
        };
        if value >= least {
            continue;
        }
        if may_write {
            say(&format!(
                "raising {name} from {value} to {least}, until the next boot (each node holds about 12 inotify instances)"
            ));
            if fs::write(&path, least.to_string()).is_ok() {
                continue;
            }
        }
        say(&format!(
            "warning: {name} is {value}: too low for more than a few nodes. Raise it: sudo sysctl -w {name}={least}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Mutex};

    use super::*;

    fn limits(instances: u64, watches: u64) -> PathBuf {
        let sys = std::env::temp_dir().join(format!("k3nest-inotify-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(sys.join("fs/inotify")).unwrap();
        fs::write(sys.join(LIMITS[0].0), format!("{instances}\n")).unwrap();
        fs::write(sys.join(LIMITS[1].0), format!("{watches}\n")).unwrap();
        sys
    }

    fn said(sys: &Path, may_write: bool) -> Vec<String> {
        let said = Mutex::new(Vec::new());
        raise_at(sys, may_write, &|line| said.lock().unwrap().push(line.to_owned()));
        said.into_inner().unwrap()
    }

    #[test]
    fn low_limits_are_raised_once() {
        let sys = limits(128, 1_048_576);
        assert_eq!(said(&sys, true).len(), 1);
        assert_eq!(fs::read_to_string(sys.join(LIMITS[0].0)).unwrap(), "8192");
        assert!(said(&sys, true).is_empty());
    }

    #[test]
    fn without_root_the_command_is_named() {
        let lines = said(&limits(128, 8192), false);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("sudo sysctl -w fs.inotify.max_user_instances=8192"), "{lines:?}");
    }
}
