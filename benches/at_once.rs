//! Five clusters created at once against the same five one after another.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use crate::{
    harness::{Cluster, Nest, Story, command::Started, pick},
    machine,
    stats::Summary,
};

/// How many.
const CLUSTERS: usize = 5;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// One server, as small as they come.
const SPEC: &str = "servers: {replicas: 1}";

/// Measures `rounds` rounds, in alternating order. Returns what came of it, as Markdown.
pub fn measure(rounds: usize, calm: Duration) -> String {
    let story = Story::new("at once");
    let clusters: Vec<Cluster> =
        (0..CLUSTERS).map(|_| Cluster::named(&pick::name("bench"), "default")).collect();
    let files: Vec<String> = clusters.iter().map(|cluster| cluster.write(SPEC)).collect();
    let (mut at_once, mut in_a_row) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for first in [true, false] {
            machine::calm(calm);
            if first == (round % 2 == 0) {
                at_once.push(all_at_once(&files));
            } else {
                in_a_row.push(one_after_another(&files));
            }
            for cluster in &clusters {
                cluster.verb(&["delete"]).exits(0);
            }
        }
        let (slowest, total) = (at_once[round].1, in_a_row[round]);
        story.tell(&format!("round {}: at once {slowest:.1?}, one after another {total:.1?}", round + 1));
    }
    table(&at_once, &in_a_row)
}

/// Until the first and the last of them was Ready, by k3nest's own word.
fn all_at_once(files: &[String]) -> (Duration, Duration) {
    let began = Instant::now();
    let started: Vec<Started> = files.iter().map(|file| Nest::new().start(&["apply", "-f", file])).collect();
    let waiting: Vec<_> = started
        .into_iter()
        .map(|apply| {
            std::thread::spawn(move || {
                apply.wait(PATIENCE).exits(0);
                began.elapsed()
            })
        })
        .collect();
    let ends: Vec<Duration> =
        waiting.into_iter().map(|thread| thread.join().expect("every one is Ready")).collect();
    (ends.iter().min().copied().unwrap_or_default(), ends.iter().max().copied().unwrap_or_default())
}

/// Until all of them were Ready.
fn one_after_another(files: &[String]) -> Duration {
    let began = Instant::now();
    for file in files {
        Nest::new().start(&["apply", "-f", file]).wait(PATIENCE).exits(0);
    }
    began.elapsed()
}

fn table(at_once: &[(Duration, Duration)], in_a_row: &[Duration]) -> String {
    let slowest = Summary::of_seconds(at_once.iter().map(|(_, slowest)| *slowest));
    let fastest = Summary::of_seconds(at_once.iter().map(|(fastest, _)| *fastest));
    let total = Summary::of_seconds(in_a_row.iter().copied());
    let pairs = at_once.iter().zip(in_a_row);
    let ratio = Summary::of(pairs.map(|((_, slowest), total)| slowest.as_secs_f64() / total.as_secs_f64()));
    let verdict = if ratio.median <= 1.0 { "met" } else { "missed" };
    let mut text = format!(
        "### {CLUSTERS} clusters of one server at once\n\n| rounds | first Ready, s | last Ready, s | one after another, all, s | last to all | goal |\n|---|---|---|---|---|---|\n"
    );
    writeln!(text, "| {} | {fastest} | {slowest} | {total} | {ratio} | 1.00, {verdict} |", at_once.len())
        .expect("a string takes everything");
    text
}
