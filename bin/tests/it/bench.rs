//! `kvctl bench`: its output, the files that it leaves, and the files that it must not touch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mapleaf::{Db, Options};
use serde_json::Value;

use crate::support::{kvctl, Folder, Ran};

fn bench(target: &str, more: &[&str]) -> Ran {
    kvctl(&[&["bench", target], more].concat())
}

/// A small file of an earlier run.
fn kept(folder: &Folder, name: &str, entries: &str) -> String {
    let path = folder.path(name);
    let ran = bench(&path, &["--keep", "--workloads", "fill", "--entries", entries]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    path
}

#[test]
fn every_workload_runs_in_a_folder_and_leaves_nothing() {
    let folder = Folder::new();
    let small = ["--entries", "3000", "--ops", "400", "--threads", "2", "--value-bytes", "40", "--key-bytes", "16"];
    let ran = bench(folder.0.path().to_str().unwrap(), &[&["--workloads", "all", "--json"], &small[..]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(folder.names(), Vec::<String>::new());
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((json["key_bytes"].as_u64(), json["value_bytes"].as_u64()), (Some(16), Some(40)));
    assert_eq!(json["interrupted"].as_bool(), Some(false));
    let mut operations: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for row in json["results"].as_array().unwrap() {
        let threads = row["threads"].as_u64().unwrap();
        let name = row["workload"].as_str().unwrap().to_string();
        *operations.entry((name, threads)).or_default() += row["operations"].as_u64().unwrap();
        let times: Vec<u64> =
            ["p50", "p90", "p99", "p99.9", "max"].map(|name| row["latency_ns"][name].as_u64().unwrap()).to_vec();
        assert!(times[0] > 0 && times.is_sorted(), "{row}");
        assert!(row["entries_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["entries"].as_u64() >= row["operations"].as_u64(), "{row}");
    }
    let expected = [
        ("fill", 1, 3),
        ("fill-seq", 1, 3),
        ("mixed", 2, 400),
        ("multi", 1, 400),
        ("multi", 2, 400),
        ("read", 1, 400),
        ("read", 2, 400),
        ("scan", 1, 400),
        ("scan-reverse", 1, 400),
        ("ycsb-a", 2, 400),
        ("ycsb-b", 2, 400),
        ("ycsb-c", 2, 400),
        ("ycsb-d", 2, 400),
        ("ycsb-e", 2, 400),
        ("ycsb-f", 2, 400),
    ];
    let mut expected = expected.map(|(name, threads, count)| ((name.to_string(), threads), count)).to_vec();
    expected.sort();
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_new_file_is_removed_unless_kept_and_a_kept_one_is_reused() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let ran = bench(&path, &["--entries", "500", "--seconds", "0.02", "--workloads", "fill-seq,scan"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("workload ") && lines[0].ends_with(" max"), "{}", ran.out);
    assert!(lines[1].starts_with("fill-seq ") && lines[2].starts_with("scan "), "{}", ran.out);
    assert!(lines[3].starts_with("keys of 24 bytes, values of 150, seed 1; ") && lines[3].ends_with("removed"));
    assert_eq!((lines.len(), folder.names().len()), (4, 0));

    kept(&folder, "a.mapleaf", "500");
    let ran = bench(&path, &["--ops", "200", "--workloads", "read,ycsb-d", "--threads", "1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.ends_with("stays\n"), "{}", ran.out);
    assert_eq!(kvctl(&["check", &path]).code, 0);
    let tables = kvctl(&["tables", &path]).out;
    let entries: u64 = tables.lines().next().unwrap().split('\t').nth(1).unwrap().parse().unwrap();
    assert!((501..600).contains(&entries), "{tables}");
    assert_eq!(folder.names_beside_locks(&["a.mapleaf"]), ["a.mapleaf"]);
}

#[test]
fn bench_does_not_touch_other_files() {
    let folder = Folder::new();
    let mine = folder.path("mine.mapleaf");
    Db::open(&mine).unwrap().write(|txn| txn.bytes_table("entries")?.insert(b"k", b"v").map(drop)).unwrap();
    let text = folder.path("text");
    fs::write(&text, "text".repeat(10_000)).unwrap();
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("link")).unwrap();
    let kept = kept(&folder, "kept.mapleaf", "100");
    let names = folder.names();
    let before: Vec<Vec<u8>> = [&mine, &text, &kept].map(|path| fs::read(path).unwrap()).to_vec();
    for (path, more, code, part) in [
        (&mine, &[][..], 2, "was not made by 'kvctl bench', and is left alone"),
        (&mine, &["--workloads", "fill"], 2, "was not made by 'kvctl bench', and is left alone"),
        (&text, &[], 3, "not a Mapleaf database"),
        (&folder.path("link"), &[], 2, "exists; choose another name"),
        (&folder.path("no/such/folder/x"), &[], 74, "no such file: the folder '"),
        (&kept, &["--workloads", "read,fill"], 2, "a fill needs a new file"),
        (&kept, &["--entries", "5"], 2, "leave --entries"),
        (&folder.path("new"), &["--key-bytes", "7"], 2, "give a whole number from 8 to 1000"),
        (&folder.path("new"), &["--seconds", "0"], 2, "seconds above 0"),
        (&folder.path("new"), &["--workloads", "faster"], 2, "give one of: fill-seq, fill,"),
    ] {
        let ran = bench(path, more);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{path} {more:?}: {}", ran.err);
        assert!(ran.err.contains(part), "{path} {more:?}: {}", ran.err);
    }
    let held = Options::new().exclusive(true).open(&kept).unwrap();
    assert_eq!(bench(&kept, &["--workloads", "read"]).code, 5);
    drop(held);
    let after: Vec<Vec<u8>> = [&mine, &text, &kept].map(|path| fs::read(path).unwrap()).to_vec();
    assert!(before == after, "a file that was refused was changed");
    assert_eq!(folder.names(), names);
}

#[test]
fn bench_detects_a_wrong_and_a_missing_entry() {
    let folder = Folder::new();
    for (name, verb) in [("wrong.mapleaf", "put"), ("missing.mapleaf", "del")] {
        let path = kept(&folder, name, "20");
        let key = kvctl(&["scan", &path, "-t", "entries", "--limit", "1", "--keys", "--hex"]).out;
        let change = [verb, &path, key.trim(), "00", "-t", "entries", "--hex"];
        let change = if verb == "put" { &change[..] } else { &[verb, &path, key.trim(), "-t", "entries", "--hex"] };
        assert_eq!(kvctl(change).code, 0);
        for workload in ["read", "multi", "mixed", "ycsb-c"] {
            let ran = bench(&path, &["--workloads", workload, "--ops", "3000"]);
            assert_eq!(ran.code, 3, "{name}, {workload}: {}", ran.err);
            assert!(ran.err.contains(key.trim()) && ran.err.ends_with("the file stays\n"), "{}", ran.err);
        }
        let scan = bench(&path, &["--workloads", "scan", "--ops", "10"]);
        assert_eq!(scan.code, if verb == "put" { 3 } else { 0 }, "{}", scan.err);
    }
}

#[test]
fn the_same_seed_repeats_the_run() {
    let folder = Folder::new();
    let run = |name: &str, seed: &str| {
        let path = folder.path(name);
        let how = ["--keep", "--workloads", "fill,mixed,ycsb", "--entries", "300", "--threads", "1", "--ops", "150"];
        let ran = bench(&path, &[&how[..], &["--seed", seed]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        kvctl(&["dump", &path, "--all", "--format", "jsonl"]).out
    };
    let first = run("a", "7");
    assert!(first == run("b", "7"));
    assert!(first != run("c", "8"));
}

#[test]
fn an_interrupted_run_prints_its_results_so_far() {
    let folder = Folder::new();
    for json in [false, true] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
        command.args(["bench", folder.0.path().to_str().unwrap(), "--entries", "2000", "--seconds", "600"]);
        command.args(["--workloads", "fill,read"]).args(json.then_some("--json"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        if json {
            while folder.names().is_empty() {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        } else {
            // The header, and the fill: the next workload runs.
            out.read_line(&mut said).unwrap();
            out.read_line(&mut said).unwrap();
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        std::io::Read::read_to_string(&mut out, &mut said).unwrap();
        let ran = child.wait_with_output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        let expected = "kvctl: interrupted; these are the figures so far, the file was removed\n";
        assert_eq!((ran.status.code(), err.as_str()), (Some(130), expected));
        assert_eq!(folder.names(), Vec::<String>::new());
        if json {
            let json: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(json["interrupted"].as_bool(), Some(true));
            assert!(!json["results"].as_array().unwrap().is_empty(), "{json}");
        } else {
            assert!(said.lines().any(|line| line.starts_with("fill ")), "{said}");
        }
    }
}
