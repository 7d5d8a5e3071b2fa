//! The summary of a run.

use serde_json::{json, Map, Value};

/// The counts of a run.
#[derive(Clone, Default, Debug)]
pub(crate) struct Report {
    pub(crate) file: String,
    pub(crate) seed: u64,
    pub(crate) cycles: u64,
    pub(crate) kills_in_commit: u64,
    pub(crate) kills_elsewhere: u64,
    pub(crate) transactions: u64,
    /// States newer than the last acknowledged one: durable, but killed before the acknowledgement.
    pub(crate) newer_than_acknowledged: u64,
    pub(crate) recoveries: u64,
    pub(crate) cut_refused: u64,
    pub(crate) cut_right: u64,
    /// Cut copies that were recovered to an older, undamaged state.
    pub(crate) cut_recovered: u64,
    pub(crate) cut_errors: u64,
    pub(crate) flipped_refused: u64,
    pub(crate) flipped_right: u64,
    pub(crate) flipped_errors: u64,
    pub(crate) largest_bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) violations: u64,
}

impl Report {
    fn figures(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("file", json!(self.file)),
            ("seed", json!(self.seed)),
            ("cycles", json!(self.cycles)),
            ("kills_in_commit", json!(self.kills_in_commit)),
            ("kills_elsewhere", json!(self.kills_elsewhere)),
            ("transactions", json!(self.transactions)),
            ("newer_than_acknowledged", json!(self.newer_than_acknowledged)),
            ("recoveries", json!(self.recoveries)),
            ("cut_copies_refused", json!(self.cut_refused)),
            ("cut_copies_right", json!(self.cut_right)),
            ("cut_copies_recovered", json!(self.cut_recovered)),
            ("cut_copies_errors", json!(self.cut_errors)),
            ("flipped_copies_refused", json!(self.flipped_refused)),
            ("flipped_copies_right", json!(self.flipped_right)),
            ("flipped_copies_errors", json!(self.flipped_errors)),
            ("largest_bytes", json!(self.largest_bytes)),
            ("seconds", json!((self.seconds * 10.0).round() / 10.0)),
            ("violations", json!(self.violations)),
        ]
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> String {
        let object: Map<String, Value> =
            self.figures().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        format!("{}\n", Value::Object(object))
    }

    /// A table of two columns.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.figures() {
            let shown = value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
            text.push_str(&format!("{:<24} {shown}\n", name.replace('_', " ")));
        }
        text
    }
}
