//! The documents name what exists: packages, targets and features of `cargo` commands, tests, and
//! functions.
//!
//! Paths are checked by the tidy test, commands of `kvctl` by its own tests. Each rule is also run
//! on a sample that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::{code, commands};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Files below a directory with this extension, relative to the root. Builds are left out.
fn files(below: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(below)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).into_iter().flatten() {
            let entry = entry.expect("a directory entry");
            let path = directory.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                if !path.ends_with("target") && !path.ends_with(".git") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.to_str().expect("UTF-8").to_string());
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<(String, String)> {
    let at_the_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(String::from);
    let others = ["docs", "fuzz", "benches/peers"].into_iter().flat_map(|below| files(below, "md"));
    at_the_root.into_iter().chain(others).map(|path| (path.clone(), read(&path))).collect()
}

fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} to mend:\n{}", findings.len(), findings.join("\n"));
}

/// What the manifest of a package says, and the targets that cargo finds by their places.
struct Package {
    manifest: &'static str,
    name: String,
    targets: BTreeSet<(&'static str, String)>,
    features: BTreeSet<String>,
}

const MANIFESTS: [&str; 4] = ["Cargo.toml", "bin/Cargo.toml", "fuzz/Cargo.toml", "benches/peers/Cargo.toml"];

impl Package {
    fn read(manifest: &'static str) -> Package {
        let mut package =
            Package { manifest, name: String::new(), targets: BTreeSet::new(), features: BTreeSet::new() };
        let mut section = String::new();
        for line in read(manifest).lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_string();
            }
            let Some((key, value)) = line.split_once(" = ") else { continue };
            let value = value.trim_matches('"').to_string();
            match (section.as_str(), key) {
                ("package", "name") => package.name = value,
                ("bench", "name") => drop(package.targets.insert(("bench", value))),
                ("bin", "name") => drop(package.targets.insert(("bin", value))),
                ("features", _) => drop(package.features.insert(key.to_string())),
                _ => {}
            }
        }
        let directory = manifest.trim_end_matches("Cargo.toml");
        if root().join(directory).join("src/main.rs").exists() {
            package.targets.insert(("bin", package.name.clone()));
        }
        for (kind, place) in [("test", "tests"), ("example", "examples")] {
            for entry in fs::read_dir(root().join(directory).join(place)).into_iter().flatten() {
                let path = entry.expect("a directory entry").path();
                if path.join("main.rs").exists() || path.extension().is_some_and(|found| found == "rs") {
                    let name = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
                    package.targets.insert((kind, name.to_string()));
                }
            }
        }
        package
    }

    fn is_in_the_main_workspace(&self) -> bool {
        ["Cargo.toml", "bin/Cargo.toml"].contains(&self.manifest)
    }
}

/// Text that stands for a name which the reader chooses.
fn is_placeholder(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

const SUBCOMMANDS: [&str; 14] = [
    "add", "bench", "build", "check", "clippy", "doc", "fmt", "fuzz", "install", "mutants", "run", "test", "update",
    "fetch",
];

/// What is wrong with a `cargo` command: the words after `cargo`.
fn cargo(words: &[String], packages: &[Package], tests: &str) -> Vec<String> {
    let mut words = words.iter().map(String::as_str).filter(|word| !word.starts_with('+'));
    let Some(subcommand) = words.next() else { return Vec::new() };
    if !SUBCOMMANDS.contains(&subcommand) {
        return vec![format!("`cargo {subcommand}`")];
    }
    if ["add", "install", "mutants", "fuzz", "update"].contains(&subcommand) {
        // Their names are those of other packages.
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let mut chosen: Vec<&Package> = packages.iter().filter(|package| package.is_in_the_main_workspace()).collect();
    let mut is_after_dashes = false;
    while let Some(word) = words.next() {
        let is_filter = subcommand == "test" && !word.starts_with('-') && !is_placeholder(word);
        match word {
            _ if is_after_dashes => {
                let is_unknown = is_filter && !is_test(word, tests);
                wrong.extend(is_unknown.then(|| format!("no test matches `{word}`")));
            }
            "--" => is_after_dashes = true,
            "-p" | "--package" => {
                let name = words.next().unwrap_or_default();
                chosen.retain(|package| package.name == name);
                if chosen.is_empty() {
                    return vec![format!("package `{name}`")];
                }
            }
            "--manifest-path" => {
                let manifest = words.next().unwrap_or_default();
                chosen = packages.iter().filter(|package| package.manifest == manifest).collect();
                if chosen.is_empty() {
                    return vec![format!("manifest `{manifest}`")];
                }
            }
            "--bench" | "--bin" | "--example" | "--test" => {
                let target = (&word[2..], words.next().unwrap_or_default().to_string());
                let is_known = |package: &&Package| {
                    package.targets.iter().any(|(kind, name)| (*kind, name) == (target.0, &target.1))
                };
                // An example of the fuzz targets is run in their directory.
                if !chosen.iter().any(is_known)
                    && !packages.iter().filter(|_| word == "--example").any(|p| is_known(&p))
                {
                    wrong.push(format!("{} `{}`", target.0, target.1));
                }
            }
            "--features" => {
                let list = words.next().unwrap_or_default();
                let unknown = list.split(',').filter(|name| !chosen.iter().any(|p| p.features.contains(*name)));
                wrong.extend(unknown.map(|name| format!("feature `{name}`")));
            }
            "--target" => drop(words.next()),
            _ if is_filter && !is_test(word, tests) => wrong.push(format!("no test matches `{word}`")),
            _ => {}
        }
    }
    wrong
}

/// Whether each part of a filter such as `power::` is a module or a part of a function of the
/// sources.
fn is_test(filter: &str, sources: &str) -> bool {
    let mut parts = filter.split("::").filter(|part| !part.is_empty());
    parts.all(|part| {
        let module = [format!("/{part}.rs\n"), format!("/{part}/")].iter().any(|path| sources.contains(path));
        let mut functions = sources.match_indices("fn ").map(|(at, _)| &sources[at + 3..]);
        module || functions.any(|rest| rest.split(['(', '<']).next().is_some_and(|name| name.contains(part)))
    })
}

/// The sources of all packages, each after a line with its path.
fn sources(below: &[&str]) -> String {
    let paths = below.iter().flat_map(|below| files(below, "rs"));
    paths.map(|path| format!("/{path}\n{}\n", read(&path))).collect()
}

#[test]
fn cargo_commands_name_what_exists() {
    let packages = MANIFESTS.map(Package::read);
    let tests = sources(&["src", "tests", "bin"]);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (path, text) in documents() {
        for command in commands(&text).iter().filter(|command| command.words[0] == "cargo") {
            count += 1;
            let found = cargo(&command.words[1..], &packages, &tests);
            wrong.extend(found.iter().map(|what| format!("{path}:{}: {what}", command.line)));
        }
    }
    assert!(count > 50, "only {count} commands found: the rule would pass by itself");
    none(wrong);
}

#[test]
fn cargo_commands_that_name_nothing_are_found() {
    let packages = MANIFESTS.map(Package::read);
    let tests = "/tests/it/power/mod.rs\nfn every_cut_is_found() {}\n";
    let wrong = |line: &str| {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        cargo(&words, &packages, tests)
    };
    for right in [
        "test -p mapleaf --test it power::every_cut -- --nocapture",
        "run --release --bin kvctl -- get a b",
        "bench --bench micro",
        "test --manifest-path benches/peers/Cargo.toml --no-default-features --features mapleaf",
        "+1.89.0 check --locked --workspace --all-targets",
        "run --example quickstart",
    ] {
        assert_eq!(wrong(right), [""; 0], "{right}");
    }
    for bad in [
        "tests",
        "test -p maple",
        "test --test its",
        "test --test it power::no_such",
        "test --test it -- gone",
        "bench --bench macro",
        "run --bin kvctls",
        "build --features none",
        "run --example slowstart",
        "run --manifest-path benches/Cargo.toml",
    ] {
        assert_eq!(wrong(bad).len(), 1, "{bad}");
    }
}

/// Functions in a row such as `| step | `src/a.rs` | `f`, `T::g` |` that the file does not have, or
/// whose type or trait the file does not implement.
fn missing_functions(text: &str, source_of: impl Fn(&str) -> Option<String>) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, file, functions] = cells[..] else { continue };
        let file = file.trim_matches('`');
        if !file.starts_with("src/") || !file.ends_with(".rs") {
            continue;
        }
        let source = source_of(file);
        for name in functions.split(',').map(|name| name.trim().trim_matches('`')) {
            count += 1;
            let (owner, function) = match name.split_once("::") {
                Some((owner, function)) => (Some(owner), function),
                None => (None, name),
            };
            let has_owner = |line: &str| {
                let mut words = line.split(|c: char| !c.is_alphanumeric());
                words.clone().any(|word| word == "impl" || word == "trait") && words.any(|word| Some(word) == owner)
            };
            let is_there = |source: &String| {
                let begin = format!("fn {function}");
                let mut found = source.match_indices(&begin).map(|(at, text)| at + text.len());
                let has_function = found.any(|end| source[end..].starts_with(['(', '<']));
                has_function && (owner.is_none() || source.lines().any(has_owner))
            };
            if !source.as_ref().is_some_and(is_there) {
                wrong.push(format!("{}: `{name}` is not in {file}", index + 1));
            }
        }
    }
    (count, wrong)
}

#[test]
fn the_walk_through_the_source_names_functions_that_exist() {
    let source_of = |path: &str| fs::read_to_string(root().join(path)).ok();
    let (count, wrong) = missing_functions(&read("README.md"), source_of);
    assert!(count > 50, "only {count} functions found: the rule would pass by itself");
    none(wrong.into_iter().map(|what| format!("README.md:{what}")).collect());

    let sample = "| a | `src/a.rs` | `f`, `g`, `T::f`, `U::f` |\n| b | `src/b.rs` | `f` |\n| c | `docs/c.md` | `f` |\n";
    let source_of = |path: &str| (path == "src/a.rs").then(|| "impl T {\nfn f<T>() {}\nfn gg(_: U) {}".to_string());
    let (count, wrong) = missing_functions(sample, source_of);
    let expected = ["1: `g` is not in src/a.rs", "1: `U::f` is not in src/a.rs", "2: `f` is not in src/b.rs"];
    assert_eq!((count, wrong), (5, expected.map(String::from).to_vec()));
}

/// Code spans that are the name of a test, or a method such as `Db::open`, and exist in no source.
fn unknown_names(text: &str, sources: &str) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for (line, span) in code(text) {
        let span = span.split('(').next().unwrap_or_default();
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let is_lower = |text: &str| is_word(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = match span.split_once("::") {
            Some((owner, name))
                if is_word(owner) && is_lower(name) && owner.starts_with(|c: char| c.is_uppercase()) =>
            {
                name
            }
            // The names of tests are sentences.
            None if is_lower(span) && span.matches('_').count() > 4 => span,
            _ => continue,
        };
        count += 1;
        if !sources.contains(&format!("fn {name}")) {
            wrong.push(format!("{line}: `{span}` is in no source"));
        }
    }
    (count, wrong)
}

#[test]
fn tests_and_methods_that_the_documents_name_exist() {
    let sources = sources(&["src", "tests", "bin", "benches"]);
    let mut total = 0;
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let (count, found) = unknown_names(&text, &sources);
        total += count;
        wrong.extend(found.into_iter().map(|what| format!("{path}:{what}")));
    }
    assert!(total > 50, "only {total} names found: the rule would pass by itself");
    none(wrong);

    let sample = "`Db::open(..)` `Db::gone`, `a_test_that_says_what_is` `a_test_that_says_what_was` `Error::Fault`\n";
    let (count, wrong) = unknown_names(sample, "fn open\nfn a_test_that_says_what_is");
    assert_eq!(count, 4);
    assert_eq!(wrong, ["1: `Db::gone` is in no source", "1: `a_test_that_says_what_was` is in no source"]);
}
