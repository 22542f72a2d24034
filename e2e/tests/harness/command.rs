//! Other programs, run to their end within a bound.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// No single command of a scenario takes longer, unless it is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was run.
    pub line: String,
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// The standard output of a program that was to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        self.exits(0).stdout
    }

    /// A program that was to end with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}, not {}, of {self}", self.code);
        self
    }

    /// A program that was to say `text` on standard error.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected {text:?} on standard error of {self}");
        self
    }

    /// A program that was to print `text`.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "expected {text:?} on standard output of {self}");
        self
    }

    /// For polls: the output, or what went wrong in words.
    pub fn result(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.stdout) } else { Err(self.to_string()) }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, stdout, stderr, took } = self;
        write!(f, "`{line}` (exit code {code} after {took:.1?})\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Runs `command` to its end, or panics after [`PATIENCE`].
pub fn run(command: &mut Command) -> Finished {
    run_with_input(command, b"")
}

/// Runs `command` with `input` on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Finished {
    let started = Started::new(command);
    started.feed(input).wait(PATIENCE)
}

/// A program that runs.
pub struct Started {
    line: String,
    child: Child,
    since: Instant,
    stdout: thread::JoinHandle<String>,
    stderr: thread::JoinHandle<String>,
}

impl Started {
    /// Starts `command`; its output is collected as it comes.
    pub fn new(command: &mut Command) -> Self {
        let line = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{line} cannot be run: {e}"));
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Self { line, child, since: Instant::now(), stdout, stderr }
    }

    /// Writes `input` to its standard input and closes it.
    pub fn feed(mut self, input: &[u8]) -> Self {
        let mut stdin = self.child.stdin.take().expect("fed once");
        // One that ends without reading has its right to: its exit code tells.
        let _ = stdin.write_all(input);
        self
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as INT.
    pub fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end; kills it and panics after `patience`.
    pub fn wait(mut self, patience: Duration) -> Finished {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(2);
        let (status, late) = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break (status, false);
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                break (self.child.wait().expect("a child of ours"), true);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        use std::os::unix::process::ExitStatusExt;
        let finished = Finished {
            line: self.line,
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
            took: self.since.elapsed(),
        };
        assert!(!late, "no end within {patience:?} of {finished}");
        finished
    }
}

/// Sends a signal to one process.
pub fn send_signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).output();
    assert!(sent.is_ok(), "kill cannot be run");
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
