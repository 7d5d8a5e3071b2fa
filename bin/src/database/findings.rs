//! Damage as the verbs `check`, `recover` and `salvage` show it: one line of text, or a JSON
//! object.

use mapleaf::Finding;
use serde_json::{json, Value};

use crate::exit::Failure;
use crate::format::jsonl;
use crate::terminal::output::{self, Output};

/// Writes each finding on a line of its own.
pub(crate) fn write(findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    findings.iter().try_for_each(|it| output.write(format!("{}\n", output::one_line(&it.to_string())).as_bytes()))
}

/// Remarks, which are no damage, as one line each.
pub(crate) fn notes(remarks: &[Finding]) -> String {
    remarks.iter().map(|remark| format!("note: {}\n", output::one_line(&remark.to_string()))).collect()
}

/// A finding as an object. The affected keys are those from `first_key` to before `end_key`; empty
/// keys stand for the beginning and the end of the table.
pub(crate) fn json_of(finding: &Finding) -> Value {
    let mut fields = json!({ "page": finding.page.map(|page| page.0), "table": finding.table });
    if let (Some(fields), Some((first, end))) = (fields.as_object_mut(), &finding.key_range) {
        fields.extend([jsonl::named_bytes("first_key", first), jsonl::named_bytes("end_key", end)]);
    }
    fields["what"] = json!(finding.what);
    fields
}

/// Findings as an array.
pub(crate) fn json_of_all(findings: &[Finding]) -> Value {
    findings.iter().map(json_of).collect()
}
