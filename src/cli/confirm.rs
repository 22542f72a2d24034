//! Questions before what cannot be undone.

use std::io::{IsTerminal, Write};

use tokio::sync::oneshot;

use super::CliError;

/// Asks for a yes on the terminal; without one it fails with `otherwise`, which says what to write.
pub async fn confirm(question: &str, otherwise: impl FnOnce() -> String) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Input(otherwise()));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    // In a thread of its own: what waits for a line here would not hear Ctrl-C.
    let (send, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).map(|_| line);
        let _ = send.send(read);
    });
    match answer.await {
        Ok(Ok(line)) if line.trim().eq_ignore_ascii_case("y") => Ok(()),
        Ok(Err(error)) => Err(CliError::Input(error.to_string())),
        _ => Err(CliError::Input("nothing was removed".into())),
    }
}
