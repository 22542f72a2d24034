//! Stages of `up` and `down`: each says what it does and how long it took.

use std::{future::Future, sync::Arc, time::Instant};

use crate::cli::{
    CliError,
    progress::{Line, Progress},
};

/// Says something about the stage at work.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// The stages of a verb, one after the other.
pub struct Stages {
    progress: Progress,
}

impl Stages {
    /// Stages with these names, which decide the width.
    pub fn new(names: &[&str]) -> Self {
        Self { progress: Progress::new(names.iter().copied()) }
    }

    /// Runs a stage. Its result may bring a last word.
    pub async fn run<T, F: Future<Output = Result<(T, String), CliError>>>(
        &self,
        name: &str,
        work: impl FnOnce(Say, Line) -> F,
    ) -> Result<T, CliError> {
        let line = self.progress.line(name);
        let began = Instant::now();
        let voice = line.clone();
        let result = work(Arc::new(move |text: &str| voice.say(text)), line.clone()).await;
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok((value, word)) => {
                line.end(&format!("{word} ({took:.1} s)"));
                Ok(value)
            }
            Err(error) => {
                line.end(&format!("failed after {took:.1} s"));
                Err(error)
            }
        }
    }
}
