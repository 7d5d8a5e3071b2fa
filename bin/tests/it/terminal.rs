//! `kvctl` on a pseudo-terminal made by `script`, and a small screen emulator that interprets its
//! output.

use std::fs;
use std::process::{Command, Stdio};

use mapleaf::Db;

use crate::support::{kvctl, Folder};

/// The lines that a terminal of this width shows after a shell command.
fn screen(columns: usize, command: &str) -> Vec<String> {
    let raw = raw(columns, command);
    let (mut lines, mut column) = (vec![Vec::new()], 0);
    let mut characters = raw.chars();
    while let Some(c) = characters.next() {
        match c {
            '\r' => column = 0,
            '\n' => lines.push(Vec::new()),
            '\x1b' => {
                let sequence: String = characters.by_ref().take(2).collect();
                assert_eq!(sequence, "[K", "the only sequence that kvctl writes erases the rest of the line");
                lines.last_mut().unwrap().truncate(column);
            }
            c => {
                if column == columns {
                    lines.push(Vec::new());
                    column = 0;
                }
                let line = lines.last_mut().unwrap();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_string()).collect()
}

/// The bytes that a shell command writes to a terminal of this width.
fn raw(columns: usize, command: &str) -> String {
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let command = format!("stty cols {columns} rows 20; kvctl() {{ {} \"$@\"; }}; {command}", program.display());
    let ran = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script, of util-linux, is installed");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn database(folder: &Folder) -> String {
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    db.write(|txn| {
        let mut table = txn.bytes_table("main")?;
        table.insert(b"a\x1b]0;title\x07", b"\x1b[31mred\x7f\xc2\x9b32m\x9b \xc3\xa4")?;
        table.insert(b"b", b"line\n\ttabbed").map(drop)
    })
    .unwrap();
    path
}

#[test]
fn a_terminal_gets_no_control_bytes_of_keys_and_values_and_a_pipe_gets_all() {
    let folder = Folder::new();
    let db = database(&folder);
    let value = "\\x1b[31mred\\x7f\\xc2\\x9b32m\\x9b \u{e4}";
    let row = format!("a\\x1b]0;title\\x07\t{value}");
    let key = "\"$(printf 'a\\033]0;title\\007')\"";
    for (verb, shown) in [
        (format!("get {db} {key}"), value),
        (format!("get {db} {key} --raw; echo"), value),
        (format!("scan {db} --to b"), &row),
        (format!("dump {db} | cat"), "a\u{1b}"),
        (format!("dump {db}"), &row),
    ] {
        let shown = shown.to_string();
        let raw = raw(200, &format!("kvctl {verb}"));
        assert!(raw.contains(&shown), "{verb}: {raw:?}");
        assert_eq!(raw.contains('\u{1b}'), verb.contains("| cat"), "{verb}: {raw:?}");
    }
    assert!(raw(80, &format!("kvctl get {db} b")).contains("line\r\n\ttabbed\r\n"));
    let error = raw(200, &format!("kvctl get {db} x -t \"$(printf '\\033[31m')\""));
    assert!(error.contains("no table '\\x1b[31m'"), "{error:?}");
    let error = raw(200, "kvctl get a b \"$(printf '\\033[31m')\"");
    assert!(error.contains("'\\x1b[31m'") && !error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn an_error_erases_the_progress_line() {
    let folder = Folder::new();
    let (db, rows) = (folder.path("a.mapleaf"), folder.path("rows.tsv"));
    let mut text: String = (0..50_000).map(|n| format!("{n:09}\tvalue\n")).collect();
    text.push_str("no tab\n");
    fs::write(&rows, &text).unwrap();
    let error = "line 50001: no tab between key and value; correct the line and load again; no rows were loaded";
    for command in [format!("kvctl load {db} {rows}"), format!("cat {rows} | kvctl load {db}")] {
        assert!(raw(120, &command).contains("MiB"), "there was progress");
        let lines = screen(300, &command);
        assert!(lines[0].starts_with("kvctl: ") && lines[0].ends_with(error), "{lines:?}");
        assert_eq!(lines[1..], [""], "{lines:?}");
    }
}

#[test]
fn progress_does_not_wrap_on_a_narrow_terminal() {
    let folder = Folder::new();
    let (db, rows, out) = (folder.path("a.mapleaf"), folder.path("rows.tsv"), folder.path("b.mapleaf"));
    fs::write(&rows, (0..50_000).map(|n| format!("{n:09}\tvalue\n")).collect::<String>()).unwrap();
    for columns in [10, 20, 40] {
        fs::remove_file(&db).ok();
        fs::remove_file(&out).ok();
        let raw = raw(columns, &format!("kvctl load {db} {rows}; kvctl compact {db} {out}; kvctl check {db}"));
        let drawn: Vec<&str> = raw.split('\r').filter_map(|part| part.strip_suffix("\x1b[K")).collect();
        assert!(drawn.iter().filter(|part| !part.is_empty()).count() >= 3, "{raw:?}");
        assert!(drawn.iter().all(|part| part.len() < columns), "{drawn:?}");
    }
    assert_eq!(kvctl(&["check", &db]).code, 0);
}
