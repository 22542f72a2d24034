//! How long each kind of call may take, and how much it may return, and why.

use std::time::Duration;

/// Questions that Docker answers from memory. A second is long; dockerd on a host that is busy
/// starting many containers was seen to take ten.
pub const QUESTION: Duration = Duration::from_secs(30);

/// Changes: creating copies the image's content into new volumes, starting waits for the OCI
/// runtime, removing waits for the layers' filesystem. Longer than any of them takes on a loaded
/// host, shorter than a person's patience with a daemon that hangs.
pub const CHANGE: Duration = Duration::from_secs(120);

/// What a stop may take beyond the time the container is given.
pub const STOP_MARGIN: Duration = Duration::from_secs(30);

/// Silence on a pull. Docker reports every half megabyte and every retry; its own limits for a
/// registry that does not answer are 30 s and less.
pub const PULL_SILENCE: Duration = Duration::from_secs(60);

/// Silence on an export. Docker's own store is copied to a temporary directory before the first byte
/// comes: the largest images that people build take some minutes on a slow disk.
pub const EXPORT_SILENCE: Duration = Duration::from_secs(300);

/// Silence on an exec, in both directions. Importing a large image says nothing while it unpacks.
pub const EXEC_SILENCE: Duration = Duration::from_secs(600);

/// How long an exec's exit code may lag behind the end of its output.
pub const EXEC_END: Duration = Duration::from_secs(10);

/// The run of a probe, which only reads a few files of the host.
pub const PROBE: Duration = Duration::from_secs(60);

/// Output kept of an exec, of logs and of a probe: its last bytes, where errors are.
pub const OUTPUT: usize = 64 * 1024;

/// Size of a file that is read from a container; a kubeconfig has a few kilobytes.
pub const FILE: usize = 1024 * 1024;
