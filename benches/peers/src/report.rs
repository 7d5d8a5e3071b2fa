//! Figures, and how they are shown on a terminal. `json.rs` keeps them, `markdown.rs` and `svg.rs` show them to readers.
//!
//! A ratio is always `engine / lmdb` of the same round, in the unit of the figure: a rate above 1 is faster than LMDB,
//! a time or a size below 1 is better than LMDB. The median of the ratios counts, not the ratio of medians.

use crate::engine::BASELINE;
use std::fmt::Write as _;

/// The engine that goals are for.
pub(crate) const OWN: &str = "mapleaf";

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What Mapleaf wants to reach.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    ValueAtMost(f64),
}

impl Goal {
    pub(crate) fn met(self, value: f64, ratio: f64) -> bool {
        match self {
            Goal::RatioAtLeast(bar) => ratio >= bar,
            Goal::RatioAtMost(bar) => ratio <= bar,
            Goal::ValueAtMost(bar) => value <= bar,
        }
    }

    pub(crate) fn text(self, unit: &str) -> String {
        match self {
            Goal::RatioAtLeast(bar) => format!("ratio at least {bar:.2}"),
            Goal::RatioAtMost(bar) => format!("ratio at most {bar:.2}"),
            Goal::ValueAtMost(bar) => format!("at most {bar} {unit}"),
        }
    }
}

/// One engine's values, one per round that counts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    pub(crate) engine: String,
    pub(crate) values: Vec<f64>,
    pub(crate) ratios: Vec<f64>,
    pub(crate) note: String,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Figure {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) keys: String,
    pub(crate) entries: u64,
    pub(crate) unit: String,
    pub(crate) better: Better,
    /// What the ratios are taken to.
    pub(crate) versus: String,
    pub(crate) goal: Option<Goal>,
    pub(crate) rows: Vec<Row>,
}

impl Figure {
    /// Takes every row's ratios to the row of LMDB.
    pub(crate) fn against_baseline(mut self) -> Figure {
        self.versus = BASELINE.into();
        let Some(base) = self.rows.iter().find(|row| row.engine == BASELINE) else { return self };
        let base = base.values.clone();
        for row in &mut self.rows {
            row.ratios = row.values.iter().zip(&base).map(|(value, base)| value / base).collect();
        }
        self
    }

    pub(crate) fn subtitle(&self) -> String {
        let better = match self.better {
            Better::Higher => "higher is better",
            Better::Lower => "lower is better",
        };
        let mut text = format!("{}, {better}; ratio to {}", self.unit, self.versus);
        if let Some(goal) = self.goal {
            let _ = write!(text, "; goal of mapleaf: {}", goal.text(&self.unit));
        }
        text
    }

    /// Whether a row of Mapleaf meets the goal, if there is one.
    pub(crate) fn verdict(&self, row: &Row) -> Option<&'static str> {
        if row.engine != OWN || row.values.is_empty() {
            return None;
        }
        let met = self.goal?.met(median(&row.values), median(&row.ratios));
        Some(if met { "met" } else { "MISSED" })
    }

    fn cells(&self, row: &Row) -> [String; 5] {
        let (value, ratio) = (median(&row.values), median(&row.ratios));
        let mut note = row.note.clone();
        if row.values.is_empty() {
            return [row.engine.clone(), "-".into(), "-".into(), String::new(), note];
        }
        if let Some(verdict) = self.verdict(row) {
            note = if note.is_empty() { verdict.into() } else { format!("{verdict}; {note}") };
        }
        let ratios = spread(&row.ratios, |ratio| format!("{ratio:.2}"));
        let ratio = if row.ratios.is_empty() { "-".into() } else { format!("{ratio:.2} {ratios}") };
        [row.engine.clone(), ratio, short(value), spread(&row.values, short), note]
    }

    pub(crate) fn table(&self) -> String {
        let head = ["engine", "ratio (min..max)", "median", "(min..max)", "note"].map(String::from);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(|row| self.cells(row)));
        let width: Vec<usize> = (0..5).map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0)).collect();
        lines.insert(1, std::array::from_fn(|i| "-".repeat(width[i])));
        let mut text = format!("{}\n  {}\n", self.title, self.subtitle());
        for line in lines {
            let cells: Vec<String> = line.iter().zip(&width).map(|(cell, &w)| format!("{cell:<w$}")).collect();
            let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
        }
        text
    }
}

/// NaN without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub(crate) fn spread(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() < 2 {
        return String::new();
    }
    format!("({}..{})", show(low), show(high))
}

/// Three or four digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_the_ratios_of_each_round() {
        let row = |engine: &str, values: &[f64]| Row {
            engine: engine.into(),
            values: values.into(),
            ratios: vec![],
            note: String::new(),
        };
        let figure = Figure {
            id: "test".into(),
            title: "test".into(),
            keys: "R".into(),
            entries: 1_000,
            unit: "s".into(),
            better: Better::Lower,
            versus: String::new(),
            goal: Some(Goal::RatioAtMost(0.9)),
            rows: vec![row(BASELINE, &[1.0, 2.0, 4.0]), row("mapleaf", &[0.5, 2.0, 1.0])],
        }
        .against_baseline();
        assert_eq!(figure.rows[1].ratios, [0.5, 1.0, 0.25]);
        assert!(figure.table().contains("0.50 (0.25..1.00)"), "{}", figure.table());
        assert!(figure.table().contains("met"));
        assert_eq!(median(&[3.0, 1.0]), 2.0);
    }
}
