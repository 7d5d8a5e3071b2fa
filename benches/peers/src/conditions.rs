//! The conditions of a run: machine, commit, date, command.

use std::path::Path;
use std::process::Command;

/// Everything that a reader needs to judge a figure, or to make it again.
pub(crate) fn of_this_run(folder: &Path) -> Vec<(String, String)> {
    let conditions = [
        ("machine", machine()),
        ("kernel", output("uname", &["-srm"])),
        ("disk", output("findmnt", &["-no", "SOURCE,FSTYPE,OPTIONS", "-T", &folder.to_string_lossy()])),
        ("compiler", output("rustc", &["--version"])),
        ("commit", commit()),
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("command", command()),
    ];
    conditions.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!("{}, {cores} CPUs, memory {}", field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"))
}

/// The working tree at the time of the run: run what was just built.
fn commit() -> String {
    let tree = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", tree, "rev-parse", "--short=12", "HEAD"]);
    let changes = output("git", &["-C", tree, "status", "--porcelain", "-uno"]);
    if changes.is_empty() {
        commit
    } else {
        format!("{commit} with uncommitted changes")
    }
}

/// The command line with the name of the program instead of its path.
fn command() -> String {
    let mut words = vec!["mapleaf-peers".to_string()];
    words.extend(std::env::args().skip(1));
    words.join(" ")
}

fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "),
        Err(_) => "unknown".into(),
    }
}
