//! Prints the results as a table and as JSON.

use std::time::Duration;

use serde_json::{json, Value};

use super::histogram::Histogram;
use super::kind::OperationKind;
use super::run::Tally;

/// The printed percentiles, with their names.
const PERCENTILES: [(f64, &str); 4] = [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9")];

/// The results of one kind of operation in one workload.
#[derive(Clone, Debug)]
pub(crate) struct ResultRow {
    workload: String,
    kind: OperationKind,
    threads: u64,
    entries: u64,
    time: Duration,
    latencies: Histogram,
}

/// The rows of a run: one for each kind of operation that was executed.
pub(crate) fn rows_of(workload: &str, threads: u64, tally: &Tally) -> Vec<ResultRow> {
    let of_kind = |kind: OperationKind| {
        let latencies = &tally.latencies[kind as usize];
        (latencies.count() > 0).then(|| ResultRow {
            workload: workload.to_string(),
            kind,
            threads,
            entries: tally.entries[kind as usize],
            time: tally.time,
            latencies: latencies.clone(),
        })
    };
    OperationKind::ALL.into_iter().filter_map(of_kind).collect()
}

/// The header of the table.
pub(crate) fn header() -> String {
    let mut line =
        format!("{:<13}{:<12}{:>7}{:>12}{:>13}", "workload", "operation", "threads", "operations", "per second");
    PERCENTILES.iter().map(|(_, name)| *name).chain(["max"]).for_each(|name| line.push_str(&format!("{name:>9}")));
    line.push('\n');
    line
}

impl ResultRow {
    fn entries_per_second(&self) -> f64 {
        self.entries as f64 / self.time.as_secs_f64().max(1e-9)
    }

    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{:<13}{:<12}{:>7}{:>12}{:>13.0}",
            self.workload,
            self.kind.name(),
            self.threads,
            self.latencies.count(),
            self.entries_per_second()
        );
        let shown = PERCENTILES.iter().map(|(percent, _)| self.latencies.percentile(*percent));
        shown.chain([self.latencies.max()]).for_each(|time| line.push_str(&format!("{:>9}", time_text(time))));
        line.push('\n');
        line
    }

    pub(crate) fn json(&self) -> Value {
        let mut latencies: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .map(|(percent, name)| (name.to_string(), json!(self.latencies.percentile(*percent))))
            .collect();
        latencies.insert("max".to_string(), json!(self.latencies.max()));
        json!({
            "workload": self.workload,
            "operation": self.kind.name(),
            "threads": self.threads,
            "operations": self.latencies.count(),
            "entries": self.entries,
            "seconds": self.time.as_secs_f64(),
            "entries_per_second": self.entries_per_second().round(),
            "latency_ns": latencies,
        })
    }
}

/// Nanoseconds with three digits and a unit.
fn time_text(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds as f64 {
        ns if ns < 999.5 => return format!("{nanoseconds}ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "us"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (nanoseconds, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1000, "1.00us"),
            (9994, "9.99us"),
            (9996, "10.0us"),
            (99_960, "100us"),
            (999_400, "999us"),
            (999_600, "1.00ms"),
            (12_345_678, "12.3ms"),
            (1_500_000_000, "1.50s"),
            (3_600_000_000_000, "3600s"),
        ] {
            assert_eq!(time_text(nanoseconds), text);
        }
    }

    #[test]
    fn rows_line_up_under_their_names() {
        let mut tally = Tally { time: Duration::from_secs(2), ..Tally::default() };
        assert!(rows_of("read", 1, &tally).is_empty());
        tally.latencies[OperationKind::Get as usize].record(1500);
        tally.entries[OperationKind::Get as usize] = 10;
        let rows = rows_of("read", 3, &tally);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].line().len(), header().len());
        let json = rows[0].json();
        assert_eq!(
            (json["entries_per_second"].as_f64(), json["latency_ns"]["p99.9"].as_u64()),
            (Some(5.0), Some(1500))
        );
    }
}
