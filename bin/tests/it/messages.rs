//! The messages of `kvctl`: each names the failure, its location and a remedy, and has the right
//! exit code.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{kvctl, Folder};

/// Runs `kvctl` in a folder, and asserts the exit code and the first line of standard error,
/// without `kvctl: `.
#[track_caller]
fn says(folder: &Folder, args: &[&str], code: i32, text: &str) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    let ran = command.args(args).current_dir(folder.0.path()).stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    let line = err.lines().next().unwrap_or_default();
    assert_eq!((ran.status.code(), line), (Some(code), format!("kvctl: {text}").as_str()), "{args:?}\n{err}");
}

/// A folder with a database `db`, a folder `folder`, and rows.
fn folder() -> Folder {
    let folder = Folder::new();
    assert_eq!(kvctl(&["put", &folder.path("db"), "k", "v"]).code, 0);
    fs::create_dir(folder.path("folder")).unwrap();
    fs::write(folder.path("rows.txt"), "k\tv\n").unwrap();
    fs::write(folder.path("empty"), "").unwrap();
    fs::write(folder.path("text"), "x".repeat(20_000)).unwrap();
    folder
}

#[test]
fn errors_of_the_command_line_name_the_argument_and_the_allowed_values() {
    let folder = folder();
    for (args, text) in [
        (&["scan", "db", "--limit", "-1"][..], "--limit: '-1' is not valid; give a whole number, 0 or more"),
        (&["scan", "db", "--limit", "x"], "--limit: 'x' is not valid; give a whole number, 0 or more"),
        (&["scan", "db", "--limit"], "--limit needs a value"),
        (
            &["scan", "db", "--limits", "1"],
            "'--limits' is not an option of 'kvctl scan'; did you mean '--limit'? 'kvctl help scan' lists them",
        ),
        (&["stat", "db", "--nothing"], "'--nothing' is not an option of 'kvctl stat'; 'kvctl help stat' lists them"),
        (
            &["get", "db", "-k"],
            "'-k' is not an option of 'kvctl get'; 'kvctl help get' lists them; a key or value that starts with '-' goes \
             after '--'",
        ),
        (&["load", "db", "--batch", "0"], "--batch: '0' is not valid; give a whole number, 1 or more"),
        (&["load", "db", "--format", "csv"], "--format: 'csv' is not valid; give one of: tsv, jsonl"),
        (&["torture", "new", "--cycles", "0"], "--cycles: '0' is not valid; give a whole number, 1 or more"),
        (
            &["torture", "new", "--max-size", "1K"],
            "--max-size: '1K' is not valid; give a size of at least 1M, as in 64M",
        ),
        (&["bench", "new", "--key-bytes", "7"], "--key-bytes: '7' is not valid; give a whole number from 8 to 1000"),
        (&["bench", "new", "--threads", "-2"], "--threads: '-2' is not valid; give a whole number from 1 to 1024"),
        (&["bench", "new", "--seconds", "0"], "--seconds: '0' is not valid; give seconds above 0, as in 0.5"),
        (&["get", "db"], "KEY is missing"),
        (&["put", "db"], "KEY and VALUE are missing"),
        (&["get", "db", "a", "b"], "'b' is one argument too many for 'kvctl get'; quote a key or value that has spaces"),
        (&["gat", "db"], "'gat' is not a verb of kvctl; did you mean 'get'? 'kvctl --help' lists the verbs"),
        (&["get", "db", "k", "--hex", "--base64"], "--hex and --base64 cannot be used together; leave one of them out"),
        (&["scan", "db", "--limit", "1", "--limit", "2"], "--limit was given twice; give it once"),
        (&["get", "", "k"], "FILE needs a value"),
        (
            &["tables", "create", "new", "t", "--key", "((),u8)"],
            "--key: '((),u8)' is not valid; a tuple has 2 to 6 items, of which only the last may be () or JSON; items \
             are str, bytes, u8 to u128, i8 to i128, f32, f64, bool, char, [u8;N], uuid, timestamp, datetime, date, \
             time, duration, () and json<any> for values, tuples such as (str,u64), and Option, Vec and Reverse such \
             as Option<u64>",
        ),
        (
            &["tables", "create", "new", "t", "--key", "(u8,[u8;65536])"],
            "new: --key: keys of type (u8,[u8;65536]) have 65537 bytes or more, and a key may have 65536",
        ),
        (
            &["tables", "frob", "db"],
            "'frob db' is not valid; the forms are 'kvctl tables FILE' and 'kvctl tables create|drop|rename|clear FILE NAME'; \
             see 'kvctl help tables'",
        ),
    ] {
        says(&folder, args, 2, text);
    }
    assert!(!fs::exists(folder.path("new")).unwrap());
}

#[test]
fn wrong_hex_and_base64_arguments_name_the_position() {
    let folder = folder();
    for (args, text) in [
        (
            &["get", "db", "--base64", "aa"][..],
            "db: --base64: 'aa': the last digit 'a' at position 2 has bits that belong to no byte; is the end missing?",
        ),
        (
            &["get", "db", "--base64", "a-b="],
            "db: --base64: 'a-b=': '-' at position 2 is not a base64 digit (A-Z a-z 0-9 + /)",
        ),
        (&["get", "db", "--hex", "abc"], "db: --hex: 'abc': an odd number of digits, but each byte has two"),
        (
            &["put", "db", "k", "@"],
            "'@' needs the path of a file after it; the value '@' itself goes through standard input, as '-'",
        ),
        (&["put", "db", "k", "@folder"], "folder: is a folder; name a file in it"),
        (&["load", "db", "folder"], "folder: is a folder; name a file in it"),
        (
            &["load", "db", "rows.txt"],
            "rows.txt: the name does not say the format (.tsv or .jsonl); add --format tsv or --format jsonl",
        ),
    ] {
        says(&folder, args, 2, text);
    }
}

#[test]
fn missing_files_and_folders_are_named_where_they_are_missing() {
    let folder = folder();
    for (args, code, text) in [
        (&["get", "none", "k"][..], 66, "none: no such file; check the path"),
        (&["get", "no/none", "k"], 66, "no/none: no such file: the folder 'no' does not exist; check the path"),
        (
            &["put", "no/way/new", "k", "v"],
            74,
            "no/way/new: no such file: the folder 'no' does not exist; check the path",
        ),
        (&["del", "none", "k"], 1, "none: no such key, because there is no such file; check the path"),
        (&["load", "db", "none.tsv"], 66, "none.tsv: no such file; check the path"),
        (&["load", "db", "none"], 66, "none: no such file; check the path"),
        (
            &["dump", "db", "-o", "folder/no/way/d.tsv"],
            74,
            "folder/no/way/d.tsv: the folder 'folder/no' does not exist; create it first, or choose another path",
        ),
        (&["compact", "db", "no/c"], 66, "no/c: no such file: the folder 'no' does not exist; check the path"),
        (&["salvage", "db", "no/c"], 66, "no/c: no such file: the folder 'no' does not exist; check the path"),
        (
            &["get", "folder", "k"],
            3,
            "folder: not a Mapleaf database: it is a directory, not a file; check the path; the file was not touched",
        ),
        (
            &["get", "text", "k"],
            3,
            "text: not a Mapleaf database: its first bytes are not those of one; check the path; the file was not touched",
        ),
        (
            &["get", "empty", "k"],
            3,
            "empty: the file is empty; remove it, or let an application open it with Options::init_empty",
        ),
    ] {
        says(&folder, args, code, text);
    }
    assert!(!fs::exists(folder.path("no")).unwrap());
}

#[test]
fn negative_answers_have_a_message() {
    let folder = folder();
    assert_eq!(kvctl(&["tables", "create", &folder.path("other"), "t"]).code, 0);
    for (args, text) in [
        (&["dump", "db", "-t", "nope"][..], "db: no table 'nope'; 'kvctl tables' lists them"),
        (&["dump", "db", "-t", "nope", "-o", "out.tsv"], "db: no table 'nope'; 'kvctl tables' lists them"),
        (&["dump", "other", "-o", "out.tsv"], "other: no table 'main'; 'kvctl tables' lists them"),
    ] {
        says(&folder, args, 1, text);
        assert!(!fs::exists(folder.path("out.tsv")).unwrap(), "{args:?}");
    }
    says(&folder, &["get", "db", "x"], 1, "db: no such key in table 'main'");
    says(&folder, &["get", "db", "x", "-t", "other"], 1, "db: no table 'other'; 'kvctl tables' lists them");
    says(&folder, &["del", "db", "x"], 1, "db: no such key in table 'main'");
}

#[test]
fn counts_of_one_use_the_singular() {
    let folder = Folder::new();
    let [db, saved, rows] = ["a.mapleaf", "b.mapleaf", "rows.tsv"].map(|name| folder.path(name));
    fs::write(&rows, "k\tv\n").unwrap();
    let load = kvctl(&["load", &db, &rows]).err;
    assert!(load.starts_with("loaded 1 row in "), "{load}");
    let check = kvctl(&["check", &db]).out;
    assert!(check.contains("; 1 table, 1 entry\n"), "{check}");
    let salvage = kvctl(&["salvage", &db, &saved]).out;
    assert!(salvage.contains("'main': 1 entry of 1\n") && salvage.contains(": 1 entry copied"), "{salvage}");
}

#[test]
fn the_longest_keys_of_a_fixed_length_fit() {
    let folder = Folder::new();
    let create = |key| kvctl(&["tables", "create", &folder.path("a.mapleaf"), "t", "--key", key]).code;
    assert_eq!((create("[u8;99999999]"), create("[u8;65537]"), create("[u8;65536]")), (2, 2, 0));
}

#[test]
fn help_of_help_is_shown() {
    let help = kvctl(&["--help"]);
    let of_help = kvctl(&["help", "--help"]);
    assert_eq!((of_help.code, of_help.err.as_str(), &of_help.out), (0, "", &help.out));
}

#[test]
fn usage_lists_each_form_on_its_own_line() {
    let folder = folder();
    let err = kvctl(&["tables", "frob", &folder.path("db")]).err;
    assert!(!err.contains("\\n") && err.lines().count() > 2, "{err}");
}

#[test]
fn without_a_meta_page_errors_name_only_salvage() {
    let folder = folder();
    let mut bytes = fs::read(folder.path("db")).unwrap();
    // The magic number stays.
    for page in bytes.chunks_mut(4096).take(2) {
        page[32..].fill(0x5a);
    }
    fs::write(folder.path("db"), &bytes).unwrap();
    for args in [&["get", "k"][..], &["put", "k", "v"], &["check"], &["stat"], &["recover"], &["dump"]] {
        let db = folder.path("db");
        let args = [&[args[0], db.as_str()], &args[1..]].concat();
        let ran = kvctl(&args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.err);
        assert!(ran.err.contains("'kvctl salvage FILE OUT' copies what can"), "{args:?}: {}", ran.err);
        for other in ["kvctl check", "kvctl recover", "Db::", "Options::"] {
            assert!(!ran.err.contains(other), "{args:?}: {}", ran.err);
        }
    }
}

#[test]
fn damage_to_a_whole_table_names_all_keys() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let rows: String = (0..2000).map(|n| format!("{n:09}\tvalue\n")).collect();
    let mut load = assert_cmd::Command::cargo_bin("kvctl").unwrap();
    load.args(["load", &db]).write_stdin(rows).assert().success();
    let mut bytes = fs::read(&db).unwrap();
    let whole = bytes.clone();
    let mut texts = Vec::new();
    for page in 2..bytes.len() / 4096 {
        bytes[page * 4096 + 100] ^= 1;
        fs::write(&db, &bytes).unwrap();
        texts.push(kvctl(&["check", &db]).out);
        bytes.copy_from_slice(&whole);
    }
    let texts = texts.concat();
    assert!(
        texts.contains("(all keys)") && texts.contains("(keys from \"") && texts.contains("(keys before \""),
        "{texts}"
    );
    assert!(texts.contains("\" up to \"") && !texts.contains("\"\""), "{texts}");
}
