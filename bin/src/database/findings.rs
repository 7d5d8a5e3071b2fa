//! Prints damage for the verbs `check`, `recover` and `salvage`: one line of text, or JSON.

use mapleaf::Finding;
use serde_json::{json, Value};

use crate::exit::Failure;
use crate::format::jsonl;
use crate::terminal::output::{self, Output};

/// Writes each finding on a line of its own.
pub(crate) fn write(findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    findings
        .iter()
        .try_for_each(|finding| output.write(format!("{}\n", output::one_line(&finding.to_string())).as_bytes()))
}

/// Remarks as one line each. A remark is not damage.
pub(crate) fn notes(remarks: &[Finding]) -> String {
    remarks.iter().map(|remark| format!("note: {}\n", output::one_line(&remark.to_string()))).collect()
}

/// A finding as an object. The affected keys begin with `first_key` and end before `end_key`; an
/// empty key stands for the beginning or the end of the table.
pub(crate) fn json_of(finding: &Finding) -> Value {
    let mut fields = json!({ "page": finding.page.map(|page| page.0), "table": finding.table });
    if let Some(snapshot) = &finding.snapshot {
        fields["snapshot"] = json!(snapshot);
    }
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
