//! Permissions of files that are made from a database, and the `Debug` output of handles.

use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mapleaf::{Db, ErrorKind, Options};

use crate::support::{lock_file_of, BYTES};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// A folder with a database of this mode, large enough that copying it takes several steps.
fn database(bits: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).unwrap();
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        (0..4000u32).try_for_each(|n| table.append(&n.to_be_bytes()[..], &[7; 900][..]).map(drop))
    })
    .unwrap();
    drop(db);
    fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
    (dir, path)
}

/// The widest mode of the file in the folder that is being made from the database.
fn most_rights(dir: &Path, database: &Path) -> u32 {
    let lock_file = lock_file_of(database);
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let others = paths.filter(|path| path != database && *path != lock_file);
    others.map(|path| mode(&path)).fold(0, |all, one| all | one)
}

#[test]
fn a_compacted_file_has_the_rights_of_its_source_and_no_more_from_the_first_byte() {
    for bits in [0o600, 0o640, 0o644, 0o666, 0o400] {
        let (dir, path) = database(bits);
        let out = dir.path().join("b.mapleaf");
        let (mut told, mut most) = (0, 0);
        let db = Options::new().read_only(true).open(&path).unwrap();
        assert_eq!(mode(&lock_file_of(&path)), bits, "{bits:o}");
        let progress = |_, _| {
            told += 1;
            most |= most_rights(dir.path(), &path);
            ControlFlow::Continue(())
        };
        db.compact_to_with(&out, progress).unwrap();
        assert!(told > 2 && most == 0o600, "{told} steps, {most:o}");
        assert_eq!(mode(&out), bits, "{bits:o}");
    }
}

#[test]
fn a_salvaged_file_has_the_rights_of_its_source_and_no_more_from_the_first_byte() {
    for bits in [0o600, 0o640, 0o644] {
        let (dir, path) = database(bits);
        let out = dir.path().join("b.mapleaf");
        let mut most = 0;
        let progress = |_, _| {
            most |= most_rights(dir.path(), &path);
            ControlFlow::Continue(())
        };
        Db::salvage_with(&path, &out, progress).unwrap();
        assert_eq!((most, mode(&out)), (0o600, bits));
    }
}

#[test]
fn the_superuser_gives_a_copy_and_the_lock_file_to_the_owner_of_the_database() {
    let (dir, path) = database(0o640);
    if fs::metadata(&path).unwrap().uid() != 0 {
        return;
    }
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    let (compacted, salvaged) = (dir.path().join("b.mapleaf"), dir.path().join("c.mapleaf"));
    Options::new().read_only(true).open(&path).unwrap().compact_to(&compacted).unwrap();
    Db::salvage(&path, &salvaged).unwrap();
    for copy in [compacted, salvaged, lock_file_of(&path)] {
        let found = fs::metadata(copy).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65534, 65534, 0o640));
    }
}

#[test]
fn a_new_database_has_the_mode_that_was_asked_for_less_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    for bits in [0o600, 0o640, 0o700] {
        let path = dir.path().join(format!("{bits:o}.mapleaf"));
        let db = Options::new().mode(bits).open(&path).unwrap();
        assert_eq!(mode(&path) & !bits, 0);
        assert_eq!(mode(&path) & 0o600, 0o600);
        assert_eq!(mode(&lock_file_of(&path)), mode(&path));
        db.write(|txn| txn.table(BYTES)?.insert(b"k", b"v").map(drop)).unwrap();
        drop(db);
        Options::new().mode(0o666).open(&path).unwrap();
        assert_eq!(mode(&path) & !bits, 0, "a file that exists keeps its mode");
    }
    for bits in [0o400, 0, 0o1600, 0o100_600] {
        let refused = Options::new().mode(bits).open(dir.path().join("never")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage, "{bits:o}");
        assert!(refused.to_string().contains("0o600"), "{refused}");
    }
    assert!(!dir.path().join("never").exists());
}

#[test]
fn an_export_gets_the_rights_of_the_database() {
    let (dir, path) = database(0o600);
    let export = dir.path().join("export");
    fs::write(&export, "rows").unwrap();
    fs::set_permissions(&export, Permissions::from_mode(0o666)).unwrap();
    let db = Db::open(&path).unwrap();
    db.share_rights_with(&fs::File::open(&export).unwrap()).unwrap();
    assert_eq!(mode(&export), 0o600);
    let memory = Db::in_memory().unwrap();
    memory.share_rights_with(&fs::File::open(&export).unwrap()).unwrap();
    assert_eq!(mode(&export), 0o600);
}

#[test]
fn a_copy_never_replaces_its_source_by_whatever_name() {
    let (dir, path) = database(0o600);
    let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
    fs::hard_link(&path, &hard).unwrap();
    std::os::unix::fs::symlink(&path, &soft).unwrap();
    let before = fs::read(&path).unwrap();
    for out in [&path, &hard, &soft] {
        let compacted = Options::new().read_only(true).open(&path).unwrap().compact_to(out).unwrap_err();
        let salvaged = Db::salvage(&path, out).unwrap_err();
        for refused in [compacted, salvaged] {
            assert_eq!(refused.kind(), ErrorKind::Usage);
            assert!(refused.to_string().contains("is the database itself"), "{refused}");
        }
    }
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn debug_output_of_handles_shows_only_path_state_and_sizes() {
    let (_dir, path) = database(0o600);
    let db = Db::open(&path).unwrap();
    let read = db.begin_read().unwrap();
    let _others: Vec<_> = (0..100).map(|_| db.begin_read().unwrap()).collect();
    let write = db.begin_write().unwrap();
    write.table(BYTES).unwrap().insert(b"secret", b"value").unwrap();
    let name = path.display().to_string();
    for shown in [format!("{db:?}"), format!("{read:?}"), format!("{write:?}")] {
        assert!(shown.contains(&name) && shown.len() < 300 + name.len(), "{} characters: {shown:.400}", shown.len());
    }
    let pages = db.stats().unwrap().page_count;
    assert!(format!("{db:?}").contains(&format!("pages: {pages}, page_size: 4096")), "{db:?}");
    assert!(format!("{read:?}").contains(&format!("txn: {}", read.txn_id())), "{read:?}");
    let table = read.table(BYTES).unwrap();
    assert!(format!("{table:?}").len() < 300 && format!("{:?}", table.iter()).len() < 300);
    assert!(format!("{:?}", write.table(BYTES).unwrap()).len() < 300);
    assert!(format!("{:?}", Options::new()).len() < 400);
    assert!(format!("{:?}", Db::in_memory().unwrap()).len() < 300);
}
