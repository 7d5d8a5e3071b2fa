//! The repository checks itself: floors, where `unsafe` stands, headers, lengths, words, and paths that exist.
//!
//! The rules are in `rules.rs`, those about words in `wording.rs`, about invariants in `labels.rs`, about circles of files
//! in `circles.rs`; `source.rs` reads Rust. Every rule is also run on a sample that breaks it, so that a rule that cannot
//! fail is found out.

mod circles;
mod labels;
mod rules;
mod samples;
mod source;
mod wording;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Files below these places with one of these extensions, relative to the root, sorted. What a build made is left out.
fn files(places: &[&str], extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut places: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
    while let Some(place) = places.pop() {
        let full = root().join(&place);
        if full.is_file() {
            found.push(place);
        } else if let Ok(entries) = fs::read_dir(&full) {
            let names = entries.map(|entry| entry.expect("a directory entry").file_name());
            places.extend(names.filter(|name| name != "target").map(|name| place.join(name)));
        }
    }
    let wanted = |path: &Path| path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted));
    let mut found: Vec<String> =
        found.into_iter().filter(|path| wanted(path)).map(|path| path.to_string_lossy().into_owned()).collect();
    found.sort();
    found
}

/// Runs a rule over files and fails with everything that it finds.
fn all_pass(files: &[String], rule: impl Fn(&str, &str) -> Vec<String>) {
    assert!(!files.is_empty(), "no files: the rule would pass by itself");
    none(files.iter().flat_map(|path| rule(path, &read(path))).collect());
}

fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} to mend:\n{}", findings.len(), findings.join("\n"));
}

const RUST: [&str; 6] = ["src", "bin", "tests", "benches", "examples", "fuzz"];

/// What is written for users and contributors.
fn documents() -> Vec<String> {
    files(&["docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"], &["md"])
}

/// Paths with the texts of their files.
fn texts(paths: Vec<String>) -> Vec<(String, String)> {
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn rust() -> Vec<String> {
    files(&RUST, &["rs"])
}

#[test]
fn floors_are_kept() {
    all_pass(&files(&["src", "bin/src"], &["rs"]), rules::floors);
}

#[test]
fn files_of_kvctl_use_each_other_in_one_direction() {
    none(circles::check(&texts(files(&["bin/src"], &["rs"]))));
}

#[test]
fn unsafe_stands_only_in_its_files() {
    all_pass(&files(&["src", "bin", "tests", "examples"], &["rs"]), rules::unsafe_rooms);
}

#[test]
fn files_are_opened_only_in_descriptor_rs() {
    all_pass(&files(&["src"], &["rs"]), rules::opening_room);
}

#[test]
fn every_file_has_a_header() {
    all_pass(&rust(), rules::header);
}

#[test]
fn text_is_ascii() {
    all_pass(&rust(), rules::ascii);
    let places = ["docs", "data", "fuzz", "benches", "README.md", "CHANGELOG.md", "Cargo.toml"];
    all_pass(&files(&places, &["md", "toml", "py"]), rules::ascii);
    none(rules::ascii(".ci/run", &read(".ci/run")));
}

#[test]
fn files_and_functions_are_short() {
    all_pass(&files(&["src", "bin"], &["rs"]), rules::file_length);
    all_pass(&files(&["src", "bin"], &["rs"]), rules::function_length);
}

#[test]
fn no_bare_matches() {
    all_pass(&rust(), rules::bare_matches);
}

#[test]
fn pictures_are_fenced() {
    all_pass(&files(&["src", "bin"], &["rs"]), rules::pictures);
}

#[test]
fn names_of_operations_do_not_break_off() {
    all_pass(&files(&["src", "bin"], &["rs"]), rules::operations);
}

#[test]
fn nothing_is_unfinished() {
    all_pass(&rust(), rules::unfinished);
}

#[test]
fn retired_terms_are_not_used() {
    all_pass(&files(&["src"], &["rs"]), wording::identifiers);
    all_pass(&files(&RUST, &["rs"]), |path, _| wording::file_name(path));
    none(wording::defined_terms("docs/glossary.md", &read("docs/glossary.md")));
}

#[test]
fn comments_and_documents_are_plain_english() {
    all_pass(&files(&["src", "bin", "tests/it", "examples", "fuzz"], &["rs"]), wording::phrases_in_comments);
    all_pass(&documents(), wording::phrases);
}

#[test]
fn comments_have_at_most_100_columns() {
    all_pass(&files(&["src", "bin", "tests/it", "examples"], &["rs"]), wording::comment_width);
}

/// Every invariant has a label of its own, and every label that is cited is defined.
#[test]
fn labels_are_unique_and_defined() {
    let paths = [files(&["src", "bin", "tests/it"], &["rs"]), documents()].concat();
    none(labels::check(&texts(paths)));
}

#[test]
fn named_paths_exist() {
    // The figures name units, keys and files that their commands write.
    let documents = documents().into_iter().filter(|path| path != "docs/performance.md");
    for path in documents.chain([".ci/run".to_string()]) {
        let path = path.as_str();
        // Paths lead from the root, or from where the text stands.
        let beside = root().join(path).with_file_name("");
        let exists = |named: &str| root().join(named).exists() || beside.join(named).exists();
        none(rules::paths_exist(path, &read(path), exists));
    }
}

#[test]
fn the_readme_names_every_module() {
    let readme = read("README.md");
    for path in files(&["src"], &["rs"]) {
        let Some(module) = rules::module_of(&path) else { continue };
        let named = [format!("src/{module}/"), format!("src/{module}.rs")];
        assert!(named.iter().any(|name| readme.contains(name)), "README.md does not name the module `{module}`");
    }
}

#[test]
fn the_format_document_agrees_with_the_layout() {
    let source = rules::constants(&read("src/page/layout.rs"));
    assert!(!source.is_empty(), "no constants found in src/page/layout.rs");
    none(rules::format_agrees("docs/format.md", &read("docs/format.md"), &source));
}

#[test]
fn the_readme_shows_the_example() {
    let example = read("examples/quickstart.rs");
    let code = example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
    let code = code.collect::<Vec<_>>().join("\n");
    assert!(read("README.md").contains(code.trim()), "README.md and examples/quickstart.rs differ");
}

#[test]
fn the_document_on_migrating_shows_the_programs_that_tests_run() {
    let document = read("docs/migrating.md");
    for path in [
        "benches/peers/examples/notes_heed.rs",
        "examples/notes.rs",
        "benches/peers/examples/ledger_redb.rs",
        "examples/ledger.rs",
    ] {
        let program = read(path);
        let code = program.split("\n#[test]").next().expect("a part");
        assert!(document.contains(code.trim()), "docs/migrating.md and {path} differ");
    }
}
