//! The verb `snapshot`, and `--snapshot` of the verbs that read.

use mapleaf::Db;

use crate::support::{kvctl, Folder, Ran};

#[track_caller]
fn done(ran: &Ran, out: &str) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, out, ""));
}

/// Asserts this exit code, no answer, and one line on standard error that contains these texts.
#[track_caller]
fn fails(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (code, "", 1), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no '{part}' in: {}", ran.err);
    }
}

#[test]
fn snapshots_are_created_read_restored_and_dropped() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["put", &db, "ada", "first"]), "");
    done(&kvctl(&["snapshot", "create", &db, "one"]), "");
    done(&kvctl(&["put", &db, "ada", "second"]), "");
    done(&kvctl(&["put", &db, "grace", "hopper"]), "");
    done(&kvctl(&["get", &db, "ada"]), "second\n");
    done(&kvctl(&["get", &db, "ada", "--snapshot", "one"]), "first\n");
    done(&kvctl(&["scan", &db, "--snapshot", "one"]), "ada\tfirst\n");
    assert!(kvctl(&["dump", &db, "--snapshot", "one"]).out.ends_with("ada\tfirst\n"));
    fails(&kvctl(&["get", &db, "ada", "--snapshot", "two"]), 2, &[&db, "no snapshot 'two'", "'one'"]);
    let listed = kvctl(&["snapshot", "list", &db]);
    let fields: Vec<&str> = listed.out.trim_end().split('\t').collect();
    assert!(listed.code == 0 && fields.len() == 5 && fields[0] == "one", "{}", listed.out);
    assert!(fields[2].starts_with("20") && fields[2].ends_with('Z'), "{}", fields[2]);
    let json = kvctl(&["snapshot", "list", &db, "--json"]).out;
    assert!(json.starts_with("[{") && json.contains("\"name\":\"one\""), "{json}");
    assert!(kvctl(&["stat", &db]).out.contains("the snapshot 'one'"));
    assert!(kvctl(&["check", &db]).out.contains("1 snapshot"));

    fails(&kvctl(&["snapshot", "restore", &db, "one"]), 2, &["not changed", "--yes", "'one'"]);
    done(&kvctl(&["get", &db, "ada"]), "second\n");
    done(&kvctl(&["snapshot", "restore", &db, "one", "--yes"]), "");
    done(&kvctl(&["scan", &db]), "ada\tfirst\n");
    fails(&kvctl(&["snapshot", "drop", &db, "one"]), 2, &["not changed", "--yes"]);
    done(&kvctl(&["snapshot", "drop", &db, "one", "--yes"]), "");
    done(&kvctl(&["snapshot", "list", &db]), "");
    assert!(Db::open(&db).unwrap().check().unwrap().is_clean());
}

#[test]
fn missing_snapshots_names_and_files_are_refused() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    fails(&kvctl(&["snapshot", "create", &db, "one"]), 66, &[&db]);
    done(&kvctl(&["put", &db, "ada", "first"]), "");
    done(&kvctl(&["snapshot", "create", &db, "one"]), "");
    fails(&kvctl(&["snapshot", "create", &db, "one"]), 2, &["already a snapshot 'one'"]);
    fails(&kvctl(&["snapshot", "create", &db, ""]), 2, &["must not be empty"]);
    fails(&kvctl(&["snapshot", "create", &db, &"n".repeat(256)]), 2, &["256", "255"]);
    for action in ["drop", "restore"] {
        fails(&kvctl(&["snapshot", action, &db, "two", "--yes"]), 1, &[&db, "no snapshot 'two'"]);
    }
}
