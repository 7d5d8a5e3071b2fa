//! A broker: a thread of the test that keeps the descriptors of a database in memory and gives them
//! to each process that asks, through a socket with a name. It opens no database.
//!
//! So the path of the socket names a database in memory as a path names a file: [`open`] opens
//! either.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mapleaf::testing::{receive_descriptors, send_descriptors};
use mapleaf::{Db, Options, Result, SharedMemory};

/// What a process asks a broker: to get the descriptors, or to keep those that follow.
const GET: u8 = b'g';
const KEEP: u8 = b'k';
/// Answers of a broker: it has descriptors, which follow, or none.
const HAS: u8 = b'h';
const NONE: u8 = b'n';

type Kept = Arc<Mutex<Option<SharedMemory>>>;

/// A broker, and the directory with its socket.
pub(crate) struct Broker {
    dir: tempfile::TempDir,
    kept: Kept,
}

impl Broker {
    /// A broker that has no descriptors yet: the first process to open makes the database.
    pub(crate) fn start() -> Broker {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("memory")).expect("a socket");
        let kept = Kept::default();
        let of_thread = Arc::clone(&kept);
        // It ends with the test.
        std::thread::spawn(move || {
            for mut caller in listener.incoming().flatten() {
                // A caller that was killed gets no answer.
                drop(serve(&mut caller, &of_thread));
            }
        });
        Broker { dir, kept }
    }

    /// The socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("memory")
    }

    /// Length of the data in bytes; 0 if there is no database.
    pub(crate) fn data_bytes(&self) -> u64 {
        let kept = self.kept.lock().expect("no panic");
        kept.as_ref().map_or(0, |memory| length(&memory.data))
    }

    /// The live records, for a test that overwrites them.
    pub(crate) fn records(&self) -> File {
        let kept = self.kept.lock().expect("no panic");
        File::from(kept.as_ref().expect("descriptors").records.try_clone().expect("a descriptor"))
    }

    /// Closes the descriptors.
    pub(crate) fn forget(&self) {
        *self.kept.lock().expect("no panic") = None;
    }
}

fn length(of: &OwnedFd) -> u64 {
    File::from(of.try_clone().expect("a descriptor")).metadata().expect("its status").len()
}

fn serve(caller: &mut UnixStream, kept: &Kept) -> std::io::Result<()> {
    let mut asked = [0];
    caller.read_exact(&mut asked)?;
    let mut kept = kept.lock().expect("no panic");
    if asked == [KEEP] {
        let [data, records] = receive_descriptors(caller)?;
        *kept = Some(SharedMemory::new(data, records));
        return caller.write_all(&[HAS]);
    }
    match &*kept {
        None => caller.write_all(&[NONE]),
        Some(memory) => {
            caller.write_all(&[HAS])?;
            send_descriptors(caller, [memory.data.as_fd(), memory.records.as_fd()])
        }
    }
}

/// In a child: the descriptors that a broker has.
fn get(path: &Path) -> Option<SharedMemory> {
    let mut broker = UnixStream::connect(path).expect("a broker");
    let mut answer = [0];
    broker.write_all(&[GET]).and_then(|()| broker.read_exact(&mut answer)).expect("an answer");
    (answer == [HAS]).then(|| {
        let [data, records] = receive_descriptors(&broker).expect("descriptors");
        SharedMemory::new(data, records)
    })
}

/// In a child: gives descriptors to a broker.
fn keep(path: &Path, memory: &SharedMemory) {
    let mut broker = UnixStream::connect(path).expect("a broker");
    broker.write_all(&[KEEP]).expect("asked");
    send_descriptors(&broker, [memory.data.as_fd(), memory.records.as_fd()]).expect("sent");
    broker.read_exact(&mut [0]).expect("an answer");
}

/// In a child: opens the file at a path, or the database of the broker there, which the first
/// process makes.
pub(crate) fn open(options: Options, path: &Path) -> Result<Db> {
    if !is_broker(path) {
        return options.open(path);
    }
    match get(path) {
        Some(memory) => options.attach(&memory),
        None => {
            let db = options.shared_memory(true).in_memory()?;
            // To the number of the first state of a file, which a history begins with.
            db.write(|txn| {
                txn.bytes_table("first")?.insert(b"k", b"v")?;
                txn.drop_table("first").map(drop)
            })?;
            keep(path, &db.share()?);
            Ok(db)
        }
    }
}

/// Whether a path is that of a broker.
fn is_broker(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}
