//! Commands in running containers, and what containers wrote.

use bollard::{
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    query_parameters::LogsOptionsBuilder,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{Docker, failure::Call, limits};
use crate::engine::{ExecOutput, Result};

/// Runs a command in a running container.
///
/// Docker's connection stalls unless its output is read while the input is written, and the command
/// sees the end of its input only by a half-closed connection. A command that ends early closes the
/// connection for writing: that is its right, and its exit code tells.
///
/// There is no call that stops an exec: after a time-out the command goes on in the container.
pub(super) async fn exec<S>(docker: &Docker, id: &str, command: &[&str], input: S) -> Result<ExecOutput>
where
    S: Stream<Item = Bytes> + Send + Unpin + 'static,
{
    let name = format!("{} in container {id}", command.first().unwrap_or(&"nothing"));
    let call = Call::new("run", "", &name);
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        ..CreateExecOptions::default()
    };
    let exec = docker
        .call(&call, limits::QUESTION, |client| async move { client.create_exec(id, options).await })
        .await?;
    let exec = exec.id.as_str();
    let started = docker
        .call(&call, limits::CHANGE, |client| async move {
            client.start_exec(exec, None::<StartExecOptions>).await
        })
        .await?;
    let StartExecResults::Attached { output, input: stdin } = started else {
        return Err(call.refused("Docker detached from the command"));
    };
    let output = converse(docker, &call, output, stdin, input).await?;
    let code = exit_code(docker, &call, exec).await?;
    Ok(ExecOutput { code, output })
}

/// Feeds `input` and collects output, until the output ends.
async fn converse(
    docker: &Docker,
    call: &Call<'_>,
    mut output: impl Stream<Item = std::result::Result<LogOutput, Error>> + Unpin,
    stdin: impl AsyncWrite + Unpin,
    input: impl Stream<Item = Bytes> + Unpin,
) -> Result<String> {
    let mut tail = Tail::default();
    // Each chunk that is written counts as a sign of life, as does each that is read.
    let writing = write_all(stdin, input).fuse();
    futures::pin_mut!(writing);
    let mut written = false;
    loop {
        tokio::select! {
            chunk = output.next() => match chunk {
                Some(chunk) => tail.push(chunk.map_err(|error| docker.failed(call, error))?.as_ref()),
                None => return Ok(tail.into_text()),
            },
            step = writing.next(), if !written => written = step.is_none(),
            () = tokio::time::sleep(limits::EXEC_SILENCE) => return Err(call.timed_out(limits::EXEC_SILENCE)),
        }
    }
}

/// Writes `input` and half-closes; yields once for every chunk written.
fn write_all(
    stdin: impl AsyncWrite + Unpin,
    input: impl Stream<Item = Bytes> + Unpin,
) -> impl Stream<Item = ()> {
    futures::stream::unfold(Some((stdin, input)), |state| async {
        let (mut stdin, mut input) = state?;
        match input.next().await {
            Some(chunk) if stdin.write_all(&chunk).await.is_ok() => Some(((), Some((stdin, input)))),
            Some(_) => None,
            None => {
                // Not writable any more means that the command has ended already.
                stdin.shutdown().await.ok();
                None
            }
        }
    })
}

/// The exit code, which may come a moment after the end of the output.
async fn exit_code(docker: &Docker, call: &Call<'_>, exec: &str) -> Result<i64> {
    let deadline = Instant::now() + limits::EXEC_END;
    let mut pause = std::time::Duration::from_millis(10);
    loop {
        let state = docker
            .call(call, limits::QUESTION, |client| async move { client.inspect_exec(exec).await })
            .await?;
        match state.exit_code {
            Some(code) if state.running != Some(true) => return Ok(code),
            _ if Instant::now() > deadline => return Err(call.timed_out(limits::EXEC_END)),
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(std::time::Duration::from_secs(1));
    }
}

/// The last lines a container wrote.
pub(super) async fn logs(docker: &Docker, id: &str, lines: usize) -> Result<String> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
    let call = Call::new("read the log of", "container", id);
    docker
        .call(&call, limits::QUESTION, |client| async move {
            let mut logs = client.logs(id, Some(options));
            let mut tail = Tail::default();
            while let Some(chunk) = logs.next().await {
                tail.push(chunk?.as_ref());
            }
            Ok(tail.into_text())
        })
        .await
}

/// The last [`limits::OUTPUT`] bytes of what was pushed.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Cut only now and then, so that a flood of short lines is not moved each time.
        if self.0.len() > 2 * limits::OUTPUT {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.0.len().saturating_sub(limits::OUTPUT);
        self.0.drain(..excess);
    }

    fn into_text(mut self) -> String {
        self.cut();
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_flood_is_kept() {
        let mut tail = Tail::default();
        for n in 0..100_000 {
            tail.push(format!("{n}\n").as_bytes());
        }
        let text = tail.into_text();
        assert_eq!(text.len(), limits::OUTPUT);
        assert!(text.ends_with("99998\n99999\n"));
    }
}
