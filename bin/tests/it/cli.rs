//! Standard output, standard error and exit code of every verb of `kvctl`.
//!
//! At the end of a test, `kvctl check` checks every database that the test created, unless its name
//! ends in `.broken`. A unit test in bin/src/exit.rs covers the exit codes that no verb returns.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mapleaf::{Db, Options};
use nix::fcntl::{fcntl, FcntlArg};

const NAMES_ROWS: usize = 32_948;

/// A folder of databases, each of which is checked at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A database with the names of characters in table `main`.
    fn names(&self, name: &str) -> String {
        let path = self.path(name);
        assert_eq!(kvctl(&["load", &path, &names_tsv()]).code, 0);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "mapleaf") {
                let ran = kvctl(&["check", path.to_str().unwrap()]);
                assert_eq!(ran.code, 0, "{}: {}{}", path.display(), ran.out(), ran.err);
            }
        }
    }
}

fn names_tsv() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/unicode-names.tsv").to_string()
}

struct Ran {
    code: i32,
    stdout: Vec<u8>,
    err: String,
}

impl From<Output> for Ran {
    fn from(ran: Output) -> Ran {
        Ran { code: ran.status.code().unwrap(), stdout: ran.stdout, err: String::from_utf8(ran.stderr).unwrap() }
    }
}

impl Ran {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts success, with this on standard output and nothing on standard error.
    #[track_caller]
    fn prints(&self, out: &str) {
        assert_eq!((self.code, self.out().as_str(), self.err.as_str()), (0, out, ""));
    }

    /// Asserts this exit code, an empty standard output, and one line on standard error that
    /// contains all of these texts.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.out().as_str()), (code, ""), "{}", self.err);
        assert!(self.err.starts_with("kvctl: ") && self.err.ends_with('\n'), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "no '{part}' in: {}", self.err);
        }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    command.args(args);
    command
}

fn kvctl(args: &[&str]) -> Ran {
    kvctl_with(args, b"")
}

fn kvctl_with(args: &[&str], stdin: &[u8]) -> Ran {
    assert_cmd::Command::from_std(command(args)).write_stdin(stdin).output().unwrap().into()
}

fn with_table(path: &str, table: &str, entries: &[(&[u8], &[u8])]) {
    let db = Db::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    for (key, value) in entries {
        txn.bytes_table(table).unwrap().insert(key, value).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn put_get_and_del_work() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    kvctl(&["put", &db, "ada", "Ada Lovelace"]).prints("");
    kvctl(&["get", &db, "ada"]).prints("Ada Lovelace\n");
    kvctl(&["get", &db, "ada", "--raw"]).prints("Ada Lovelace");
    kvctl(&["put", &db, "ada", ""]).prints("");
    kvctl(&["get", &db, "ada"]).prints("\n");
    kvctl(&["get", &db, "bob"]).fails(1, &[&db, "no such key", "'main'"]);
    kvctl(&["get", &db, "ada", "-t", "other"]).fails(1, &[&db, "no table 'other'"]);
    kvctl(&["del", &db, "bob"]).fails(1, &["no such key"]);
    kvctl(&["del", &db, "ada"]).prints("");
    kvctl(&["del", &db, "ada"]).fails(1, &["no such key"]);
    kvctl(&["get", &db, "ada"]).fails(1, &["no such key"]);
    kvctl(&["put", &db, "", "empty key"]).prints("");
    kvctl(&["get", &db, ""]).prints("empty key\n");
}

#[test]
fn del_creates_no_table() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    kvctl(&["del", &db, "k", "-t", "none"]).fails(1, &["no such key"]);
    assert!(!Path::new(&db).exists());
    with_table(&db, "some", &[]);
    kvctl(&["del", &db, "k", "-t", "none"]).fails(1, &["no such key"]);
    kvctl(&["tables", &db]).prints("");
}

#[test]
fn tables_do_not_share_keys() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    kvctl(&["put", &db, "k", "1", "-t", "one"]).prints("");
    kvctl(&["put", &db, "k", "2", "--table", "two"]).prints("");
    kvctl(&["put", &db, "l", "3", "--table=two"]).prints("");
    kvctl(&["get", "-t", "one", &db, "k"]).prints("1\n");
    kvctl(&["get", "-t", "two", &db, "k"]).prints("2\n");
    let ran = kvctl(&["tables", &db]);
    let rows: Vec<Vec<&str>> =
        std::str::from_utf8(&ran.stdout).unwrap().lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!((rows.len(), &rows[0][..2], &rows[1][..2]), (2, &["one", "1"][..], &["two", "2"][..]));
    let json: serde_json::Value = serde_json::from_slice(&kvctl(&["tables", &db, "--json"]).stdout).unwrap();
    assert_eq!((&json[1]["name"], &json[1]["entries"]), (&"two".into(), &2.into()));
    let long = "t".repeat(256);
    kvctl(&["put", &db, "k", "v", "-t", &long]).fails(2, &["256", "255"]);
}

#[test]
fn put_reads_values_from_standard_input_and_files() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl_with(&["put", &db, "in", "-"], b"\0\xff\n").code, 0);
    assert_eq!(kvctl(&["get", &db, "in", "--raw"]).stdout, b"\0\xff\n");
    let file = folder.write("value", b"a\tb\n");
    kvctl(&["put", &db, "file", &format!("@{file}")]).prints("");
    kvctl(&["get", &db, "file"]).prints("a\tb\n\n");
    let missing = folder.path("missing");
    kvctl(&["put", &db, "file", &format!("@{missing}")]).fails(66, &[&missing, "no such file"]);
}

#[test]
fn hex_and_base64_arguments_are_bytes() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    kvctl(&["put", &db, "--hex", "00FF", "c0ffee"]).prints("");
    kvctl(&["get", &db, "--hex", "00ff"]).prints("c0ffee\n");
    kvctl(&["get", &db, "--base64", "AP8="]).prints("wP/u\n");
    assert_eq!(kvctl(&["get", &db, "--raw", "--base64", "AP8"]).stdout, b"\xc0\xff\xee");
    kvctl(&["scan", &db, "--hex"]).prints("00ff\tc0ffee\n");
    kvctl(&["scan", &db, "--base64", "--keys"]).prints("AP8=\n");
    kvctl(&["scan", &db, "--hex", "--prefix", "00"]).prints("00ff\tc0ffee\n");
    kvctl(&["put", &db, "--hex", "0", "00"]).fails(2, &["--hex: '0'", "odd"]);
    kvctl(&["get", &db, "--base64", "*"]).fails(2, &["--base64: '*'"]);
    kvctl(&["del", &db, "--hex", "00ff"]).prints("");
    assert_eq!(kvctl(&["get", &db, "--hex", "--base64", "00"]).code, 2);
}

#[test]
fn scan_prints_the_entries_within_bounds() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_table(&db, "main", &[(b"a", b"1"), (b"b", b"2"), (b"ba", b"3"), (b"bb", b"4"), (b"c", b"5")]);
    let scan = |args: &[&str]| kvctl(&[&["scan", &db], args].concat());
    scan(&[]).prints("a\t1\nb\t2\nba\t3\nbb\t4\nc\t5\n");
    scan(&["--keys"]).prints("a\nb\nba\nbb\nc\n");
    scan(&["--keys", "--reverse"]).prints("c\nbb\nba\nb\na\n");
    scan(&["--prefix", "b"]).prints("b\t2\nba\t3\nbb\t4\n");
    scan(&["--keys", "--from", "b", "--to", "bb"]).prints("b\nba\n");
    scan(&["--keys", "--prefix", "b", "--from", "ba"]).prints("ba\nbb\n");
    scan(&["--keys", "--prefix", "b", "--reverse", "--limit", "2"]).prints("bb\nba\n");
    scan(&["--from", "c", "--to", "a"]).prints("");
    scan(&["--limit", "0"]).prints("");
    scan(&["--count"]).prints("5\n");
    scan(&["--count", "--prefix", "b"]).prints("3\n");
    scan(&["--count", "--limit", "2"]).prints("2\n");
    assert_eq!(scan(&["--count", "--keys"]).code, 2);
    let other = scan(&["-t", "other"]);
    assert_eq!((other.code, other.out().as_str()), (0, ""));
    assert!(other.err.contains("no table 'other'"), "{}", other.err);
}

#[test]
fn scan_escapes_bytes_that_would_break_the_line() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_table(&db, "main", &[(b"#a\tb", b"#c\n\r\\"), (b"\xff", b"\0")]);
    let ran = kvctl(&["scan", &db]);
    assert_eq!((ran.code, &ran.stdout[..]), (0, &b"\\x23a\\tb\t#c\\n\\r\\\\\n\xff\t\0\n"[..]));
}

#[test]
fn load_reports_every_row() {
    let folder = Folder::new();
    let db = folder.path("names.mapleaf");
    let ran = kvctl(&["load", &db, &names_tsv()]);
    assert_eq!((ran.code, ran.out().as_str()), (0, ""));
    assert!(ran.err.starts_with(&format!("loaded {NAMES_ROWS} rows in ")), "{}", ran.err);
    let bytes = fs::metadata(&db).unwrap().len();
    assert!(ran.err.contains("entries/s") && ran.err.contains(&format!("{db}: {bytes} bytes")), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    kvctl(&["get", &db, "U+1F980"]).prints("CRAB\n");
    kvctl(&["scan", &db, "--count"]).prints(&format!("{NAMES_ROWS}\n"));
    kvctl(&["scan", &db, "--prefix", "U+1F980"]).prints("U+1F980\tCRAB\n");
}

#[test]
fn load_stores_complete_batches_only() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let mut rows: Vec<String> = (1..=30).map(|i| format!("k{i:02}\tv\n")).collect();
    rows[24] = "no tab\n".to_string();
    let load = |rows: &[String]| kvctl_with(&["load", &db, "--batch", "10"], rows.concat().as_bytes());
    load(&rows).fails(65, &["standard input: line 25: no tab", "20 rows of whole batches stay"]);
    kvctl(&["scan", &db, "--count"]).prints("20\n");
    rows[24] = format!("{}\tv\n", "k".repeat(65_537));
    load(&rows).fails(2, &["standard input: line 25: ", "65537", "65536", "20 rows of whole batches stay"]);
    kvctl(&["scan", &db, "--count"]).prints("20\n");
    rows[24] = "k25\tbad \\q\n".to_string();
    load(&rows[22..]).fails(65, &["line 3: bad escape '\\q'", "no rows were loaded"]);
    kvctl(&["scan", &db, "--count"]).prints("20\n");
    rows[24] = "k25\tv\n".to_string();
    assert_eq!(load(&rows).code, 0);
    kvctl(&["scan", &db, "--count"]).prints("30\n");
    assert_eq!(kvctl(&["load", &db, "--batch", "0"]).code, 2);
}

#[test]
fn load_chooses_the_format() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let json = b"{\"key\": \"j\", \"value_b64\": \"/w==\"}\n";
    assert_eq!(kvctl(&["load", &db, &folder.write("rows.jsonl", json)]).code, 0);
    let text = folder.write("rows.txt", json);
    kvctl(&["load", &db, &text]).fails(2, &[&text, "--format"]);
    assert_eq!(kvctl(&["load", &db, &text, "--format", "jsonl"]).code, 0);
    assert_eq!(kvctl_with(&["load", &db, "-"], b"# comment\n\nt\tv\r\n").code, 0);
    kvctl_with(&["load", &db, "--format", "jsonl"], b"{}\n").fails(65, &["line 1", "\"key\""]);
    assert_eq!(kvctl(&["scan", &db]).stdout, b"j\t\xff\nt\tv\n");
    let missing = folder.path("missing.tsv");
    let unmade = folder.path("unmade");
    kvctl(&["load", &unmade, &missing]).fails(66, &[&missing]);
    assert!(!Path::new(&unmade).exists());
}

#[test]
fn loading_a_dump_restores_any_bytes() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let all: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = all.iter().copied().cycle().take(3 << 20).collect();
    let mut entries: Vec<(&[u8], &[u8])> =
        vec![(b"", b""), (b"#", b"#"), (b"long", &long), (b"text", "\u{e4}\r".as_bytes())];
    entries.extend(all.chunks(1).map(|byte| (byte, byte)));
    with_table(&db, "main", &entries);
    for name in ["dump.tsv", "dump.jsonl"] {
        let dump = folder.path(name);
        kvctl(&["dump", &db, "-o", &dump]).prints("");
        let again = folder.path(&format!("{name}.mapleaf"));
        assert_eq!(kvctl(&["load", &again, &dump]).code, 0);
        assert!(kvctl(&["dump", &again]).stdout == kvctl(&["dump", &db]).stdout, "{name}");
        let read = Options::new().read_only(true).open(&again).unwrap().begin_read().unwrap();
        let table = read.bytes_table("main").unwrap();
        assert_eq!(table.len(), 259);
        for (key, value) in &entries {
            assert!(table.get(key).unwrap() == Some(*value), "{name}: {key:?}");
        }
    }
}

#[test]
fn dump_writes_all_tables() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_table(&db, "one", &[(b"k", b"1"), (b"l", b"\xff")]);
    with_table(&db, "two", &[(b"k", b"2")]);
    let json = ["--all", "--format", "jsonl"];
    let rows = "{\"table\": \"one\", \"key_codec\": \"\", \"value_codec\": \"\"}\n\
                {\"table\": \"two\", \"key_codec\": \"\", \"value_codec\": \"\"}\n\
                {\"table\": \"one\", \"key\": \"k\", \"value\": \"1\"}\n\
                {\"table\": \"one\", \"key\": \"l\", \"value_b64\": \"/w==\"}\n\
                {\"table\": \"two\", \"key\": \"k\", \"value\": \"2\"}\n";
    let dump = |db: &str, args: &[&str]| kvctl(&[&["dump", db], args].concat());
    dump(&db, &json).prints(rows);
    dump(&db, &["-t", "two", "--format", "jsonl"]).prints(
        "{\"table\": \"two\", \"key_codec\": \"\", \"value_codec\": \"\"}\n{\"key\": \"k\", \"value\": \"2\"}\n",
    );
    dump(&db, &["-t", "two", "--format", "tsv"]).prints("# mapleaf-table\ttwo\t\t\nk\t2\n");
    let declared = "# mapleaf-table\tone\t\t\n# mapleaf-table\ttwo\t\t\n";
    let tsv = [declared, "# mapleaf-table\tone\t\t\nk\t1\nl\t\\xff\n# mapleaf-table\ttwo\t\t\nk\t2\n"].concat();
    let bytes = tsv.replace("\\xff", "\u{0}").into_bytes();
    let bytes: Vec<u8> = bytes.into_iter().map(|byte| if byte == 0 { 0xFF } else { byte }).collect();
    assert_eq!(dump(&db, &["--all"]).stdout, bytes);
    let again = folder.path("again.mapleaf");
    assert_eq!(kvctl_with(&["load", &again, "--format", "jsonl", "--batch", "2"], rows.as_bytes()).code, 0);
    dump(&again, &json).prints(rows);
    // Older releases wrote dumps without declarations of tables.
    let old: Vec<&str> = rows.lines().skip(2).collect();
    let older = folder.path("older.mapleaf");
    assert_eq!(kvctl_with(&["load", &older, "--format", "jsonl"], old.join("\n").as_bytes()).code, 0);
    dump(&older, &json).prints(rows);
}

#[test]
fn dump_never_leaves_an_incomplete_file() {
    let folder = Folder::new();
    let db = folder.names("names.mapleaf");
    let before = fs::read(&db).unwrap();
    kvctl(&["dump", &db, "-o", &db, "--format", "tsv"]).fails(2, &["is the database itself"]);
    assert!(fs::read(&db).unwrap() == before);
    let nowhere = folder.path("no/folder.tsv");
    kvctl(&["dump", &db, "-o", &nowhere]).fails(74, &[&nowhere]);
    let unnamed = folder.path("rows");
    kvctl(&["dump", &db, "-o", &unnamed]).fails(2, &[&unnamed, "--format"]);
    assert!(!Path::new(&unnamed).exists());
    let out = folder.write("out.tsv", "before");
    kvctl(&["dump", &db, "-o", &out]).prints("");
    let mut sorted: Vec<String> = fs::read_to_string(names_tsv()).unwrap().lines().map(str::to_string).collect();
    sorted.sort();
    let dumped: Vec<String> = fs::read_to_string(&out).unwrap().lines().map(str::to_string).collect();
    assert_eq!(dumped[0], "# mapleaf-table\tmain\t\t");
    assert!(dumped[1..] == sorted);
}

#[test]
fn stat_and_check_print_their_figures() {
    let folder = Folder::new();
    let db = folder.names("names.mapleaf");
    let stat = kvctl(&["stat", &db]);
    assert_eq!((stat.code, stat.err.as_str()), (0, ""));
    assert!(stat.out().lines().any(|line| line == format!("entries         {NAMES_ROWS}")), "{}", stat.out());
    let json: serde_json::Value = serde_json::from_slice(&kvctl(&["stat", &db, "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["entries"], &json["tables"], &json["format_version"]),
        (&NAMES_ROWS.into(), &1.into(), &1.into())
    );
    assert_eq!(json["file"], db.as_str());
    assert_eq!(json["uuid"].as_str().map(str::len), Some(36));

    let check = kvctl(&["check", &db]);
    assert_eq!((check.code, check.err.as_str()), (0, ""));
    assert!(check.out().starts_with("whole: ") && check.out().contains(&format!("{NAMES_ROWS} entries")));
    let json: serde_json::Value = serde_json::from_slice(&kvctl(&["check", &db, "--json"]).stdout).unwrap();
    assert_eq!((&json["clean"], &json["findings"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn check_exits_with_1_for_damage() {
    let folder = Folder::new();
    let db = folder.names("names.broken");
    let mut bytes = fs::read(&db).unwrap();
    for byte in &mut bytes[8192..] {
        *byte ^= 0x55;
    }
    fs::write(&db, &bytes).unwrap();
    let check = kvctl(&["check", &db]);
    assert_eq!(check.code, 1, "{}{}", check.out(), check.err);
    assert!(check.out().contains("page ") && check.out().lines().last().unwrap().starts_with("damaged: "));
    assert!(check.err.starts_with("kvctl: ") && check.err.contains("damaged"), "{}", check.err);
    let json = kvctl(&["check", &db, "--json"]);
    let clean = &serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap()["clean"];
    assert_eq!((json.code, clean), (1, &false.into()));
    kvctl(&["get", &db, "U+1F980"]).fails(3, &[&db, "damage", "kvctl check"]);
    assert!(fs::read(&db).unwrap() == bytes);
}

/// Every verb with arguments that suit this file.
fn all_verbs(db: &str) -> Vec<Vec<&str>> {
    let mut verbs = reading_verbs(db);
    verbs.extend([vec!["put", db, "k", "v"], vec!["del", db, "k"], vec!["load", db]]);
    verbs.extend([vec!["incr", db, "k"], vec!["cas", db, "k", "a", "b"], vec!["del", db, "--prefix", "k"]]);
    verbs.extend([vec!["tables", "rename", db, "a", "b"], vec!["tables", "drop", db, "a", "--yes"]]);
    verbs
}

fn reading_verbs(db: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["get", db, "U+1F980"],
        vec!["get", db, "absent"],
        vec!["scan", db, "--prefix", "U+1F"],
        vec!["scan", db, "--reverse", "--limit", "9"],
        vec!["scan", db, "--skip", "9", "--limit", "9", "--json"],
        vec!["dump", db],
        vec!["dump", db, "--from", "U+1F", "--to", "U+2"],
        vec!["dump", db, "--all"],
        vec!["stat", db],
        vec!["stat", db, "--pages", "--json"],
        vec!["check", db],
        vec!["tables", db],
        vec!["page", db],
        vec!["page", db, "2", "--json"],
    ]
}

#[test]
fn verbs_that_read_leave_the_file_byte_identical() {
    let folder = Folder::new();
    let db = folder.names("names.mapleaf");
    let state = || (fs::read(&db).unwrap(), fs::metadata(&db).unwrap().modified().unwrap());
    let before = state();
    for args in reading_verbs(&db) {
        let ran = kvctl(&args);
        assert_eq!(ran.code, i32::from(args[2..].contains(&"absent")), "{args:?}: {}", ran.err);
        assert!(state() == before, "{args:?}");
    }
}

#[test]
fn verbs_that_read_refuse_a_missing_file() {
    let folder = Folder::new();
    let db = folder.path("missing");
    for args in reading_verbs(&db) {
        kvctl(&args).fails(66, &[&db, "no such file"]);
        assert!(!Path::new(&db).exists(), "{args:?}");
    }
}

#[test]
fn files_that_are_not_databases_are_refused_and_unchanged() {
    let folder = Folder::new();
    let text = vec![b'x'; 20_000];
    for (name, bytes, part) in [("text.broken", &text[..], "not a Mapleaf database"), ("empty.broken", b"", "empty")] {
        let path = folder.write(name, bytes);
        for args in all_verbs(&path) {
            kvctl(&args).fails(3, &[&path, part]);
            assert!(fs::read(&path).unwrap() == bytes, "{args:?}");
        }
    }
    let cut = folder.names("cut.broken");
    let length = fs::metadata(&cut).unwrap().len();
    File::options().write(true).open(&cut).unwrap().set_len(length / 2).unwrap();
    let before = fs::read(&cut).unwrap();
    for args in all_verbs(&cut) {
        kvctl(&args).fails(3, &[&cut]);
        assert!(fs::read(&cut).unwrap() == before, "{args:?}");
    }
    let directory = folder.path("directory");
    fs::create_dir(&directory).unwrap();
    for args in all_verbs(&directory) {
        kvctl(&args).fails(3, &[&directory, "a directory"]);
    }
}

#[test]
fn a_database_that_another_process_has_open_is_read_and_written() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_table(&db, "main", &[(b"U+1F980", b"v")]);
    let reader = Options::new().read_only(true).open(&db).unwrap();
    let writer = Db::open(&db).unwrap();
    for handle in [&reader, &writer] {
        kvctl(&["get", &db, "U+1F980"]).prints("v\n");
        kvctl(&["put", &db, "k", "of kvctl"]).prints("");
        let seen = handle.read(|txn| Ok(txn.bytes_table("main")?.get(b"k")?.map(<[u8]>::to_vec))).unwrap();
        assert_eq!(seen.as_deref(), Some(&b"of kvctl"[..]));
        writer.write(|txn| txn.bytes_table("main")?.insert(b"k", b"of the writer").map(drop)).unwrap();
        kvctl(&["get", &db, "k"]).prints("of the writer\n");
    }
}

#[test]
fn a_database_that_another_process_has_open_exclusively_is_locked() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_table(&db, "main", &[(b"U+1F980", b"v")]);
    let alone = Options::new().exclusive(true).open(&db).unwrap();
    for args in all_verbs(&db) {
        kvctl(&args).fails(5, &[&db, "locked"]);
    }
    drop(alone);
    kvctl(&["put", &db, "k", "v"]).prints("");
}

#[test]
fn keys_over_the_limit_are_refused() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    kvctl(&["put", &db, &"k".repeat(65_536), "v"]).prints("");
    kvctl(&["put", &db, &"k".repeat(65_537), "v"]).fails(2, &["65537", "65536"]);
    kvctl(&["scan", &db, "--count"]).prints("1\n");
}

#[test]
fn a_file_without_read_permission_has_the_exit_code_for_permission() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let mode = |path: &str, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let folder = Folder::new();
    let db = folder.names("names.mapleaf");
    mode(&db, 0);
    let mut get = command(&["get", &db, "U+1F980"]);
    if fs::metadata(&db).unwrap().uid() == 0 {
        // The superuser may read any file, so `kvctl` runs as the user nobody, who needs permission
        // to reach the program and the file.
        mode(folder.0.path().to_str().unwrap(), 0o755);
        let program = folder.path("kvctl");
        fs::copy(assert_cmd::cargo::cargo_bin!("kvctl"), &program).unwrap();
        get = Command::new(&program);
        get.args(["get", &db, "U+1F980"]).uid(65534);
    }
    Ran::from(get.output().unwrap()).fails(77, &[&db, "permission denied", "check the owner and mode"]);
    mode(&db, 0o600);
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_not() {
    let folder = Folder::new();
    let db = folder.names("names.mapleaf");
    for (verb, begins) in [("scan", b"U+0020\tSPA"), ("dump", b"# mapleaf-")] {
        let mut child = command(&[verb, &db]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut start = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, begins);
        Ran::from(child.wait_with_output().unwrap()).prints("");
    }
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let ran = command(&["get", &db, "U+1F980"]).stdout(full).output().unwrap();
        Ran::from(ran).fails(74, &["standard output: cannot be written"]);
    }
}

fn spawn_load(db: &str) -> Child {
    command(&["load", db, "--batch", "1000"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// The number of stored rows, as an interrupted load prints it.
fn kept(child: Child, db: &str) -> usize {
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.fails(130, &["interrupted; ", " rows of whole batches stay"]);
    let count: usize = ran.err.split(' ').find_map(|word| word.parse().ok()).unwrap();
    kvctl(&["scan", db, "--count"]).prints(&format!("{count}\n"));
    count
}

#[test]
fn sigint_ends_load_at_the_next_batch() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let mut child = spawn_load(&db);
    let mut stdin = child.stdin.take().unwrap();
    let rows = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&rows);
    let sender = thread::spawn(move || {
        while stdin.write_all(format!("{:09}\tvalue\n", sent.load(Relaxed)).as_bytes()).is_ok() {
            sent.fetch_add(1, Relaxed);
        }
    });
    // Far more than the pipe and the buffers of the child hold: it has committed.
    while rows.load(Relaxed) < 40_000 {
        thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let count = kept(child, &db);
    assert!(count > 0 && count.is_multiple_of(1000), "{count}");
    sender.join().unwrap();
}

#[test]
fn sigint_ends_a_load_that_waits_for_input() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let mut child = spawn_load(&db);
    let mut stdin = child.stdin.take().unwrap();
    // The last write ends when the child has read all but a page of the rows: it has committed
    // the second batch by then.
    fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    for row in 0..2900 {
        stdin.write_all(format!("{row:09}\tvalue\n").as_bytes()).unwrap();
    }
    interrupt(&child);
    assert_eq!(kept(child, &db), 2000);
    drop(stdin);
}

#[test]
fn help_has_the_exit_codes_and_usage_errors_exit_with_2() {
    let help = kvctl(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    for code in [0, 1, 2, 3, 4, 5, 65, 66, 74, 77, 130] {
        assert!(help.out().lines().any(|line| line.starts_with(&format!("  {code:>3}  "))), "{code}");
    }
    for verb in [
        "put", "get", "del", "incr", "cas", "scan", "load", "txn", "dump", "stat", "check", "page", "tables",
        "recover", "salvage",
    ] {
        let help = kvctl(&[verb, "--help"]);
        assert!(help.code == 0 && help.out().contains(&format!("Examples:\n  kvctl {verb} ")), "{verb}");
        let usage = kvctl(&[verb]);
        assert_eq!((usage.code, usage.out().as_str()), (2, ""), "{verb}");
        assert!(usage.err.contains("Usage: "), "{verb}: {}", usage.err);
    }
    for args in [&[][..], &["nothing"], &["get", "file", "key", "--nothing"]] {
        assert_eq!(kvctl(args).code, 2, "{args:?}");
    }
    kvctl(&["--version"]).prints(concat!("kvctl ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn names_with_control_characters_stay_on_one_line() {
    let folder = Folder::new();
    let db = folder.path("no\nsuch");
    kvctl(&["stat", &db]).fails(66, &["no\\nsuch"]);
    let db = folder.path("a.mapleaf");
    kvctl(&["put", &db, "k", "v", "-t", "a\tb"]).prints("");
    assert!(kvctl(&["tables", &db]).out().starts_with("a\\tb\t1\t"));
}
