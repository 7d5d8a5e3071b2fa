//! Figures, and how they are shown: a table for people, JSON for programs.
//!
//! A ratio is always `engine / lmdb` of the same round, in the unit of the figure: a rate above 1 is faster than LMDB,
//! a time or a size below 1 is better than LMDB. The median of the ratios counts, not the ratio of medians.

use crate::engine::BASELINE;
use crate::Res;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What Mapleaf wants to reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    ValueAtMost(f64),
}

impl Goal {
    fn met(self, value: f64, ratio: f64) -> bool {
        match self {
            Goal::RatioAtLeast(bar) => ratio >= bar,
            Goal::RatioAtMost(bar) => ratio <= bar,
            Goal::ValueAtMost(bar) => value <= bar,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Goal::RatioAtLeast(bar) => format!("ratio at least {bar:.2}"),
            Goal::RatioAtMost(bar) => format!("ratio at most {bar:.2}"),
            Goal::ValueAtMost(bar) => format!("at most {bar} {unit}"),
        }
    }
}

/// One engine's values, one per round that counts.
pub(crate) struct Row {
    pub(crate) engine: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) ratios: Vec<f64>,
    pub(crate) note: String,
}

pub(crate) struct Figure {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
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

    fn subtitle(&self) -> String {
        let better = match self.better {
            Better::Higher => "higher is better",
            Better::Lower => "lower is better",
        };
        let mut text = format!("{}, {better}; ratio to {}", self.unit, self.versus);
        if let Some(goal) = self.goal {
            let _ = write!(text, "; goal of mapleaf: {}", goal.text(self.unit));
        }
        text
    }

    fn cells(&self, row: &Row) -> [String; 5] {
        let (value, ratio) = (median(&row.values), median(&row.ratios));
        let mut note = row.note.clone();
        if row.values.is_empty() {
            return [row.engine.into(), "-".into(), "-".into(), String::new(), note];
        }
        if let (Some(goal), "mapleaf") = (self.goal, row.engine) {
            let verdict = if goal.met(value, ratio) { "met" } else { "MISSED" };
            note = if note.is_empty() { verdict.into() } else { format!("{verdict}; {note}") };
        }
        let ratios = spread(&row.ratios, |ratio| format!("{ratio:.2}"));
        let ratio = if row.ratios.is_empty() { "-".into() } else { format!("{ratio:.2} {ratios}") };
        [row.engine.into(), ratio, short(value), spread(&row.values, short), note]
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

    fn json(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(row_json).collect();
        format!(
            "{{\"id\": {}, \"title\": {}, \"unit\": {}, \"ratio_to\": {}, \"engines\": [\n    {}\n  ]}}",
            quoted(self.id),
            quoted(&self.title),
            quoted(self.unit),
            quoted(&self.versus),
            rows.join(",\n    ")
        )
    }
}

fn row_json(row: &Row) -> String {
    format!(
        "{{\"engine\": {}, \"median\": {}, \"ratio\": {}, \"values\": [{}], \"ratios\": [{}], \"note\": {}}}",
        quoted(row.engine),
        number(median(&row.values)),
        number(median(&row.ratios)),
        numbers(&row.values),
        numbers(&row.ratios),
        quoted(&row.note)
    )
}

fn numbers(values: &[f64]) -> String {
    values.iter().map(|&v| number(v)).collect::<Vec<_>>().join(", ")
}

fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value}")
    } else {
        "null".into()
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 32 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
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

fn spread(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() < 2 {
        return String::new();
    }
    format!("({}..{})", show(low), show(high))
}

/// Three or four digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything that a reader needs to judge a figure, or to make it again.
pub(crate) fn conditions(folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("machine", machine()),
        ("kernel", output("uname", &["-srm"])),
        ("disk", output("findmnt", &["-no", "SOURCE,FSTYPE,OPTIONS", "-T", &folder.to_string_lossy()])),
        ("compiler", output("rustc", &["--version"])),
        ("commit", commit()),
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("command", command()),
    ]
}

fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!("{}, {cores} CPUs, memory {}", field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"))
}

/// The working tree at the time of the run: run what was just built.
fn commit() -> String {
    let tree = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", tree, "rev-parse", "--short=12", "HEAD"]);
    let changes = output("git", &["-C", tree, "status", "--porcelain", "-uno"]);
    if changes.is_empty() {
        commit
    } else {
        format!("{commit} with uncommitted changes")
    }
}

/// The command line with the name of the program instead of its path.
fn command() -> String {
    let mut words = vec!["mapleaf-peers".to_string()];
    words.extend(std::env::args().skip(1));
    words.join(" ")
}

fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "),
        Err(_) => "unknown".into(),
    }
}

pub(crate) fn write_json(path: &Path, conditions: &[(&str, String)], figures: &[Figure]) -> Res<()> {
    let mut text = String::from("{\n");
    for (name, value) in conditions {
        let _ = writeln!(text, "  {}: {},", quoted(name), quoted(value));
    }
    let figures: Vec<String> = figures.iter().map(Figure::json).collect();
    let _ = write!(text, "  \"figures\": [\n  {}\n  ]\n}}\n", figures.join(",\n  "));
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_per_round_and_the_median_counts() {
        let row = |engine, values: &[f64]| Row { engine, values: values.into(), ratios: vec![], note: String::new() };
        let figure = Figure {
            id: "test",
            title: "test".into(),
            unit: "s",
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

    #[test]
    fn json_escapes() {
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
    }
}
