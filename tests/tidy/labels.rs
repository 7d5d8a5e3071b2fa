//! Labels of invariants and rules.
//!
//! An invariant is defined once, as `WIN-2` in the header of the module that keeps it. The rules between modules are `R1` to
//! `R12` in docs/design.md and `P1` on in docs/concurrency.md. Any comment or document may cite a label.

use std::collections::BTreeMap;

use super::rules::at;
use super::source::comment_of;

/// Names with the form of a label that are none.
const NO_LABELS: [&str; 6] = ["CRC-32", "UTF-8", "UTF-16", "SHA-256", "ISO-8601", "MIT-0"];

/// What is wrong with the labels of all texts together.
pub(crate) fn check(texts: &[(String, String)]) -> Vec<String> {
    let mut homes: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, text) in texts {
        for (line, label) in defined(path, text) {
            if let Some(first) = homes.insert(label.clone(), format!("{path}:{line}")) {
                wrong.push(at(path, line, format!("`{label}` is defined at {first} as well")));
            }
        }
    }
    assert!(!homes.is_empty(), "no label is defined: the rule would pass by itself");
    for (path, text) in texts {
        let unknown = cited(path, text).into_iter().filter(|(_, label)| !homes.contains_key(label));
        wrong.extend(unknown.map(|(line, label)| at(path, line, format!("`{label}` is defined nowhere"))));
    }
    wrong
}

/// Definitions: `//!   WIN-2  text` in a header, and `**R7. text` in a document.
pub(crate) fn defined(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let found = if path.ends_with(".rs") {
            line.strip_prefix("//!   ")
                .and_then(|rest| rest.split_once("  "))
                .map(|(label, _)| label)
                .filter(|l| is_label(l))
        } else {
            let rest = line.trim_start_matches("- ").strip_prefix("**");
            rest.and_then(|rest| rest.split_once('.')).map(|(label, _)| label).filter(|label| is_rule(label))
        };
        all.extend(found.map(|label| (index + 1, label.to_string())));
    }
    all
}

/// Labels in the comments of a source file, or anywhere in a document.
pub(crate) fn cited(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let said = if path.ends_with(".rs") { comment_of(line) } else { line };
        let words = said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        let labels = words.filter(|word| is_label(word) || is_rule(word));
        all.extend(labels.map(|label| (index + 1, label.to_string())));
    }
    all
}

/// `WIN-2`: capital letters, a number.
fn is_label(word: &str) -> bool {
    let Some((name, number)) = word.split_once('-') else { return false };
    let letters = name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_uppercase());
    letters && is_number(number) && !NO_LABELS.contains(&word)
}

/// `R7`, `P22`.
fn is_rule(word: &str) -> bool {
    // R16 is a kind of keys of the benchmarks.
    word != "R16" && word.strip_prefix(['R', 'P']).is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
