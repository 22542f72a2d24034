//! Progress of long work: spinners on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Progress of several things at once.
pub struct Progress {
    bars: Option<MultiProgress>,
    width: usize,
}

/// Progress of one of them.
#[derive(Clone)]
pub struct Line {
    bar: Option<ProgressBar>,
    name: String,
    since: Instant,
    last: Arc<Mutex<String>>,
}

impl Progress {
    /// Progress of the things called `names`, on standard error.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let width = names.map(str::len).max().unwrap_or_default();
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new), width }
    }

    /// A line for `name`.
    pub fn line(&self, name: &str) -> Line {
        let name = format!("{name:width$}", width = self.width);
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Line { bar, name, since: Instant::now(), last: Arc::default() }
    }
}

impl Line {
    /// Says what is being done; the same thing twice is said once.
    pub fn say(&self, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *last == text {
            return;
        }
        text.clone_into(&mut last);
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("{} {:>6.1}s  {text}", self.name, self.since.elapsed().as_secs_f64()),
        }
    }

    /// Says how it ended.
    pub fn end(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.disable_steady_tick();
                bar.finish_with_message(text.to_owned());
            }
            None => self.say(text),
        }
    }
}
