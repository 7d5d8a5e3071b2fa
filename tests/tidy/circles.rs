//! Files of `kvctl` do not use each other in a circle.
//!
//! A file uses another if it names it by a path that begins with `crate` or `super`, outside of its tests. A `mod.rs` names
//! the files of its directory without such a path; that does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{at, is_test, paths_of};
use super::source::{code_only, find_token, lines_without_tests};

const SOURCE: &str = "bin/src/";

/// What a file uses: the line, and the path of the other file.
type Uses = BTreeMap<String, Vec<(usize, String)>>;

/// Each use that leads back to the file that it stands in.
pub(crate) fn check(texts: &[(String, String)]) -> Vec<String> {
    let uses = uses_of(texts);
    let mut wrong = Vec::new();
    for (path, used) in &uses {
        let back = used.iter().filter(|(_, other)| other != path && reached_from(other, &uses).contains(path.as_str()));
        wrong.extend(back.map(|(line, other)| at(path, *line, format!("uses `{other}`, which uses this file"))));
    }
    wrong
}

fn uses_of(texts: &[(String, String)]) -> Uses {
    let modules: BTreeMap<Vec<String>, &str> =
        texts.iter().map(|(path, _)| (module_path(path), path.as_str())).collect();
    let outside_tests = texts.iter().filter(|(path, _)| !is_test(path));
    outside_tests
        .map(|(path, text)| {
            let named = names(&module_path(path), text).into_iter();
            let used = named.filter_map(|(line, name)| Some((line, file_of(&name, &modules)?.to_string())));
            // A line may name several items of one file.
            let used: BTreeSet<(usize, String)> = used.collect();
            (path.clone(), used.into_iter().collect())
        })
        .collect()
}

/// `bin/src/format/tsv.rs` is `[format, tsv]`, `bin/src/format/mod.rs` is `[format]`.
fn module_path(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches(SOURCE).trim_end_matches(".rs");
    let names = inner.trim_end_matches("/mod").split('/').filter(|name| *name != "main");
    names.map(str::to_string).collect()
}

/// The paths that the code of a module names, from the root of the crate.
fn names(module: &[String], text: &str) -> Vec<(usize, Vec<String>)> {
    let lines: Vec<&str> = text.lines().take(lines_without_tests(text)).collect();
    let code = code_only(&lines.join("\n"));
    let parent = &module[..module.len().saturating_sub(1)];
    let mut all = Vec::new();
    for (start, from) in [("crate", &[][..]), ("super", parent)] {
        for (line, index) in find_token(&code, start) {
            let Some(rest) = code[index + start.len()..].strip_prefix("::") else { continue };
            all.extend(paths_of(rest).into_iter().map(|path| (line, [from, &path].concat())));
        }
    }
    all
}

/// The file of the longest beginning of a path that is a module.
fn file_of<'a>(name: &[String], modules: &BTreeMap<Vec<String>, &'a str>) -> Option<&'a str> {
    (1..=name.len()).rev().find_map(|length| modules.get(&name[..length]).copied())
}

/// The files that a file uses, directly or through others.
fn reached_from<'a>(path: &'a str, uses: &'a Uses) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        for (_, other) in uses.get(path).into_iter().flatten() {
            if reached.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    reached
}
