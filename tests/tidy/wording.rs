//! Rules about words: one term per concept, plain English, comments of a width that can be read.

use super::rules::at;
use super::source::{code_only, comment_of, words};

/// Parts of identifiers and file names that stand for a concept which has another term in docs/glossary.md.
const PARTS: [(&str, &str); 28] = [
    ("node", "page, branch or leaf"),
    ("nodes", "page, branch or leaf"),
    ("outbox", "write queue"),
    ("desk", "append buffer"),
    ("graft", "propagate"),
    ("canvas", "write_map, writable mapping"),
    ("tip", "latest"),
    ("seat", "reader slot, cell"),
    ("seated", "reader slot, cell"),
    ("guarded", "fault_guard"),
    ("intact", "check_fault, all_served"),
    ("believe", "check_fault"),
    ("believed", "check_fault"),
    ("marked", "verified"),
    ("kept", "written through, or what it holds"),
    ("piece", "chunk"),
    ("pieces", "chunks"),
    ("populate", "prefault"),
    ("populated", "prefaulted"),
    ("populates", "prefaults"),
    ("harden", "make_durable"),
    ("hardened", "durable"),
    ("medium", "disk, direct I/O"),
    ("trust", "cache validation"),
    ("residence", "residency"),
    ("shift", "redistribute"),
    ("top", "flat index"),
    ("tops", "flat indexes"),
];

/// Whole identifiers of the same kind.
const NAMES: [(&str, &str); 14] = [
    ("Run", "SortedRun or OverflowExtent"),
    ("ValueRun", "OverflowWriter"),
    ("free_run", "free_extent"),
    ("run_pages", "overflow_pages"),
    ("View", "ReadMap"),
    ("Meta", "MetaPage"),
    ("MetaError", "MetaPageError"),
    ("Mark", "VerifiedBitmap"),
    ("Marks", "VerifiedBitmap"),
    ("Top", "FlatIndex"),
    ("get_resident", "get_nonblocking"),
    ("Place", "a name that says what is there"),
    ("Found", "a name that says what was found"),
    ("Watch", "a name that says what is watched"),
];

/// Identifiers with such a part that mean something else: bits are shifted, constants of the kernel are named by the kernel.
const EXEMPT: [&str; 5] = ["page_shift", "shift", "MADV_POPULATE_WRITE", "MADV_POPULATE_READ", "PopulateRead"];

/// Old terms as identifiers.
pub(crate) fn identifiers(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut wrong = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for name in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if EXEMPT.contains(&name) {
                continue;
            }
            let parts = words(name);
            let part = PARTS.iter().find(|(old, _)| parts.iter().any(|(_, part)| part == old));
            let whole = NAMES.iter().find(|(old, _)| *old == name);
            if let Some((_, new)) = part.or(whole) {
                wrong.push(at(path, index + 1, format!("`{name}`: say {new}")));
            }
        }
    }
    wrong
}

/// Old terms as names of files and directories.
pub(crate) fn file_name(path: &str) -> Vec<String> {
    let parts = words(path);
    let old = PARTS.iter().filter(|(old, _)| parts.iter().any(|(_, part)| part == old));
    old.map(|(old, new)| at(path, 1, format!("`{old}` in the name of a file: say {new}"))).collect()
}

/// Old terms in the first column of the glossary.
pub(crate) fn defined_terms(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(term) = line.strip_prefix('|').and_then(|rest| rest.split('|').next()) else { continue };
        let parts = words(term);
        let old = PARTS.iter().filter(|(old, _)| parts.iter().any(|(_, part)| part == old));
        wrong.extend(old.map(|(old, new)| at(path, index + 1, format!("`{old}` is defined: say {new}"))));
    }
    wrong
}

/// Phrases that make a reader stop, with what to write instead.
const PHRASES: [(&str, &str); 10] = [
    ("whoever", "name the subject"),
    ("somebody", "name the subject"),
    ("by calls", "by `pwrite`"),
    ("alone", "only"),
    ("behind", "after"),
    ("the system", "the kernel"),
    ("all the same", "say what happens"),
    ("as ever", "say what happens"),
    ("a guess less", "say what changed"),
    ("the medium", "the disk"),
];

/// Such phrases in the comments of a source file.
pub(crate) fn phrases_in_comments(path: &str, text: &str) -> Vec<String> {
    phrases_of(path, text.lines().map(comment_of))
}

/// Such phrases anywhere in a document.
pub(crate) fn phrases(path: &str, text: &str) -> Vec<String> {
    phrases_of(path, text.lines())
}

fn phrases_of<'a>(path: &str, lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in lines.enumerate() {
        let plain: Vec<&str> = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let line = format!(" {} ", plain.join(" ").to_ascii_lowercase()).replace(" system call", " call");
        let met = PHRASES.iter().filter(|(phrase, _)| line.contains(&format!(" {phrase} ")));
        wrong.extend(met.map(|(phrase, instead)| at(path, index + 1, format!("\"{phrase}\": {instead}"))));
    }
    wrong
}

const COMMENT_COLUMNS_MAX: usize = 100;

/// Comment lines within 100 columns. Code may be wider, and so may pictures, examples and rows of tables, which cannot
/// be wrapped.
pub(crate) fn comment_width(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            fenced = false;
            continue;
        };
        let said = comment.trim_start_matches(['/', '!']).trim_start();
        fenced ^= said.starts_with("```");
        if line.len() > COMMENT_COLUMNS_MAX && !fenced && !said.starts_with('|') {
            wrong.push(at(path, index + 1, format!("{} columns, at most {COMMENT_COLUMNS_MAX}", line.len())));
        }
    }
    wrong
}
