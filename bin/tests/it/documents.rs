//! Every `kvctl` command in the documents is valid: its verb exists, and the verb's help lists its
//! flags.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command as Process;

use crate::commands::{commands, Command};
use crate::support::{kvctl, Folder};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The README and everything in `docs/`, by their paths.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(String::from).into();
    let entries = fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    paths.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(&path)).unwrap())).collect()
}

/// The words after `kvctl`, in `kvctl ..` and in `cargo run --bin kvctl -- ..`.
fn arguments(command: &Command) -> Option<&[String]> {
    let words = &command.words;
    if words[0] == "kvctl" {
        return Some(&words[1..]);
    }
    let is_run = words[0] == "cargo" && words.windows(2).any(|pair| pair == ["--bin", "kvctl"]);
    let start = words.iter().position(|word| word == "--")? + 1;
    is_run.then(|| &words[start..])
}

/// The help texts of the verbs, each requested once; `None` for a verb that does not exist.
#[derive(Default)]
struct Helps(BTreeMap<String, Option<String>>);

impl Helps {
    fn of(&mut self, verb: &[&str]) -> Option<&str> {
        let help = self.0.entry(verb.join(" ")).or_insert_with(|| {
            let ran = kvctl(&[verb, &["--help"]].concat());
            (ran.code == 0).then_some(ran.out)
        });
        help.as_deref()
    }
}

/// Whether a help text lists a flag as an option: `-t, --table NAME`.
fn has_flag(help: &str, flag: &str) -> bool {
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let mut words = options.flat_map(|line| line.split([' ', ',', '=', '[']));
    words.any(|word| word == flag)
}

/// The errors in the words after `kvctl`.
fn wrong(words: &[String], helps: &mut Helps) -> Vec<String> {
    let Some(verb) = words.first().map(String::as_str) else { return Vec::new() };
    let verb = match (verb, words.get(1).map(String::as_str)) {
        ("help", Some(verb)) => vec![verb],
        ("tables", Some(action @ ("create" | "drop" | "rename" | "clear"))) => vec!["tables", action],
        _ if verb.starts_with('-') => vec![],
        _ => vec![verb],
    };
    if verb.iter().any(|word| word.bytes().all(|byte| byte.is_ascii_uppercase())) && !verb.is_empty() {
        // A placeholder, as in `kvctl help VERB`.
        return Vec::new();
    }
    let Some(help) = helps.of(&verb) else { return vec![format!("`kvctl {}`", verb.join(" "))] };
    let flags = words.iter().filter(|word| word.len() > 1 && word.starts_with('-'));
    let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag));
    flags.filter(|flag| !has_flag(help, flag)).map(|flag| format!("`kvctl {}` has no {flag}", verb.join(" "))).collect()
}

#[test]
fn kvctl_commands_in_the_documents_have_verbs_and_flags_that_exist() {
    let mut helps = Helps::default();
    let (mut count, mut found) = (0, Vec::new());
    for (path, text) in documents() {
        for command in commands(&text) {
            let Some(words) = arguments(&command) else { continue };
            count += 1;
            found.extend(wrong(words, &mut helps).iter().map(|what| format!("{path}:{}: {what}", command.line)));
        }
    }
    assert!(count > 30, "only {count} commands found: the rule would pass by itself");
    assert!(found.is_empty(), "{} to mend:\n{}", found.len(), found.join("\n"));
}

#[test]
fn kvctl_commands_that_do_not_exist_are_found() {
    let sample =
        "`kvctl show FILE` `kvctl get FILE --no-such key` `kvctl tables make`\n```sh\nkvctl dump a --all | kvctl \
                  lode b\ncargo run --bin kvctl -- put a -q b c\n```\n`kvctl` `kvctl help VERB` `kvctl --help` \
                  `kvctl tables create f t --key str` `kvctl torture f --truncate`\n";
    let mut helps = Helps::default();
    let found: Vec<String> = commands(sample)
        .iter()
        .filter_map(|command| arguments(command))
        .flat_map(|words| wrong(words, &mut helps))
        .collect();
    let expected = ["`kvctl show`", "`kvctl get` has no --no-such", "`kvctl lode`", "`kvctl put` has no -q"];
    assert_eq!(found, expected);
}

/// The lines of the first shell block after a heading.
fn block(text: &str, heading: &str, first: &str) -> Vec<String> {
    let section = text.split_once(heading).expect("the heading").1;
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let found = blocks.into_iter().find(|block| block.starts_with(first)).expect("the block");
    found.lines().map(String::from).collect()
}

/// Runs a line of the README in a shell that finds this `kvctl`.
fn run(folder: &Folder, line: &str) -> (bool, String) {
    let binary = Path::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Process::new("sh");
    let ran = shell.args(["-c", line]).env("PATH", path).current_dir(folder.0.path()).output().unwrap();
    (ran.status.success(), String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn the_commands_of_the_readme_work_as_described() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let folder = Folder::new();
    for line in block(&readme, "## kvctl", "kvctl tables create") {
        let (succeeded, out) = run(&folder, &line);
        assert!(succeeded, "{line}");
        if let Some((_, said)) = line.split_once("# ").filter(|(_, said)| said.bytes().all(|b| b.is_ascii_digit())) {
            assert_eq!(out.trim(), said, "{line}");
        }
    }
    assert_eq!(kvctl(&["get", &folder.path("copy.mapleaf"), "-t", "born", "ada"]).out.trim(), "1815");

    assert_eq!(kvctl(&["put", &folder.path("app.mapleaf"), "key", "value"]).code, 0);
    for line in block(&readme, "## When a file is damaged", "kvctl check") {
        assert!(run(&folder, &line).0, "{line}");
    }
    assert_eq!(kvctl(&["get", &folder.path("saved.mapleaf"), "key"]).out.trim(), "value");
}
