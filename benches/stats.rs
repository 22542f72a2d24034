//! Medians and quartiles.

use std::time::Duration;

/// The middle of a series and its quarters.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub lower: f64,
    pub median: f64,
    pub upper: f64,
}

impl Summary {
    /// Of at least one number.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        assert!(!sorted.is_empty(), "a summary of nothing");
        sorted.sort_by(f64::total_cmp);
        // Between two neighbours in proportion, as spreadsheets do.
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }

    /// Of durations, in seconds.
    pub fn of_seconds(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(times.into_iter().map(|time| time.as_secs_f64()))
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lower, median, upper } = self;
        write!(f, "{median:.2} ({lower:.2}–{upper:.2})")
    }
}
