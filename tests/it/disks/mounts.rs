//! What depends on the mount and the kind of file system: mounts that are read only.

use mapleaf::{Db, Error, Options, Table};

use super::{run, skipped, Disk, Kind};

const NUMBERS: Table<u64, u64> = Table::new("numbers");

fn put(db: &Db, key: u64) {
    db.write(|txn| txn.table(NUMBERS)?.insert(key, key).map(drop)).expect("committed");
}

#[test]
fn on_a_read_only_mount_the_error_says_how_to_read() {
    let disk = match Disk::new(Kind::Tmpfs) {
        Ok(disk) => disk,
        Err(why) => return skipped("on_a_read_only_mount_the_error_says_how_to_read", &why),
    };
    let path = disk.path().join("db.mapleaf");
    put(&Db::open(&path).expect("made"), 7);
    if let Err(why) = run(&["mount", "-o", "remount,ro"], &[&disk.path()]) {
        return skipped("on_a_read_only_mount_the_error_says_how_to_read", &why);
    }
    let says_how = |refused: mapleaf::Result<Db>| {
        let text = refused.map(drop).expect_err("a read-only mount").to_string();
        assert!(text.contains("(os error 30)") && text.contains("Options::read_only(true)"), "{text}");
        assert!(text.contains(disk.path().to_str().expect("a name")), "{text}");
    };
    says_how(Db::open(&path));
    says_how(Db::open(disk.path().join("new.mapleaf")));
    let refused = Db::recover(&path).map(drop).expect_err("a read-only mount");
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    let db = Options::new().read_only(true).open(&path).expect("opens to read");
    assert_eq!(db.begin_read().and_then(|txn| txn.table(NUMBERS)?.get(7)).expect("reads"), Some(7));
}
