//! Options for opening a database.
//!
//! Floor: db. A builder with one method per option.

use std::cmp::Ordering;
use std::path::Path;
use std::time::Duration;

use crate::catalog::orders::KeyOrders;
use crate::db::{open_with, Db};
use crate::error::Result;
use crate::mapping::ReadAhead;
use crate::txn::open::{self, OpenSpec};

/// Options for opening a database.
///
/// ```
/// use mapleaf::Options;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.mapleaf");
/// let db = Options::new().page_size(8192).open(&path)?;
/// # drop(db);
/// let db = Options::new().read_only(true).open(&path)?;
/// assert!(db.begin_write().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # A database that this process has open
///
/// Opening it again gives another handle to the same database, which keeps the options of the first
/// open:
///
/// | option | when opened again |
/// |---|---|
/// | [`read_only`](Options::read_only) | applies to the new handle; without it, `Locked` if this process reads the database without a lock file |
/// | [`exclusive`](Options::exclusive) | `Locked` if this process shares the database with others |
/// | [`fault_guard`](Options::fault_guard), [`read_ahead`](Options::read_ahead) | a value that differs from the current one is an error of kind `Usage` |
/// | [`recover`](Options::recover) | an error of kind `Usage` |
/// | [`key_order`](Options::key_order) | has no effect: the comparisons of the first open hold |
/// | [`window_size`](Options::window_size) | has no effect: the window exists |
/// | [`page_size`](Options::page_size), [`create`](Options::create), [`init_empty`](Options::init_empty), [`mode`](Options::mode) | have no effect, as for any existing database |
#[derive(Clone, Debug)]
pub struct Options {
    spec: OpenSpec,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The options of [`Db::open`].
    pub fn new() -> Options {
        Options { spec: OpenSpec::default() }
    }

    /// Page size of a new database, in bytes: 4096 (the default), 8192, 16384 or 32768. An existing
    /// database keeps its own.
    pub fn page_size(mut self, bytes: u32) -> Options {
        self.spec.page_size = bytes as usize;
        self
    }

    /// Open read-only: the database file is never written. A process that may write to the file and
    /// to its lock file then reads beside processes that write. One that may not reads only while
    /// no such process has the file open; otherwise it gets
    /// [`Error::Locked`](crate::Error::Locked). Default: false.
    pub fn read_only(mut self, read_only: bool) -> Options {
        self.spec.read_only = read_only;
        self
    }

    /// Keep other processes out: none may open the file meanwhile. Opening it fails with
    /// [`Error::Locked`](crate::Error::Locked) while others have it open. No lock file is made, and
    /// a write transaction makes fewer system calls. Default: false.
    pub fn exclusive(mut self, exclusive: bool) -> Options {
        self.spec.exclusive = exclusive;
        self
    }

    /// Open a file on a network file system, such as NFS or SMB, for writing. These do not keep
    /// mappings and locks of several machines coherent, so two machines could destroy the file.
    /// Without this option, that is an error of kind `Usage`. Set it only for a file that one
    /// machine uses. Default: false.
    pub fn network_file_system(mut self, network_file_system: bool) -> Options {
        self.spec.network = network_file_system;
        self
    }

    /// Make a database in memory one that other processes may share: children after `fork`, and
    /// processes that get its descriptors ([`Db::share`]). A file needs no such option. Without it,
    /// a database in memory takes no locks between processes, so its commits are faster. Such a
    /// database is shared also with [`exclusive`](Options::exclusive); to attach with that option
    /// is an error. Default: false.
    pub fn shared_memory(mut self, shared_memory: bool) -> Options {
        self.spec.shared_memory = shared_memory;
        self
    }

    /// Create the file if it does not exist. Default: true (but a read-only open never creates it).
    pub fn create(mut self, create: bool) -> Options {
        self.spec.create = create;
        self
    }

    /// Make an existing empty file a new database, for files made by a temporary-file crate. The
    /// same goes for a file of at most two pages that has only zeros: a power loss can leave one
    /// while an empty file is initialised. Default: false, because an empty file is more often one
    /// that lost its contents.
    pub fn init_empty(mut self, init_empty: bool) -> Options {
        self.spec.init_empty = init_empty;
        self
    }

    /// Mode of a new database file, minus the umask as for any new file. The file has it from the
    /// start, under its temporary name too. An existing file keeps its own. The owner must be able
    /// to read and write. Default: `0o666`.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("secret.mapleaf");
    /// let db = mapleaf::Options::new().mode(0o600).open(&path)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(mut self, mode: u32) -> Options {
        self.spec.mode = mode;
        self
    }

    /// Address space to reserve when opening, in bytes, for reading; the same amount is reserved
    /// for writing. This is not a limit: a database that outgrows it moves to a larger window.
    /// Reserved address space takes no memory, but the whole process shares it. So all databases
    /// together reserve at most half of the address space (or `RLIMIT_AS`, if set) that the rest of
    /// the program leaves, unless their files need more. Default: the larger of 64 GiB and 16 times
    /// the file, but at most a sixteenth of what is left of that half. A size set here may take all
    /// that is left.
    pub fn window_size(mut self, bytes: u64) -> Options {
        self.spec.window_bytes = Some(bytes);
        self
    }

    /// Turn accesses to the file that the kernel cannot serve, because the file was cut short or
    /// the disk fails, into [`Error::Fault`](crate::Error::Fault). For that, the first database
    /// opened with this option installs a handler for the signal SIGBUS; it passes signals that do
    /// not concern a database to the previous handler. Without the SIGBUS handler, and in threads
    /// that block SIGBUS, such an access kills the process. Default: true.
    pub fn fault_guard(mut self, fault_guard: bool) -> Options {
        self.spec.fault_guard = Some(fault_guard);
        self
    }

    /// If the newest state is not whole, because the file was cut short or its pages are damaged,
    /// go back to the newest state that is. [`Db::recover`] explains when there is one. Later
    /// commits are lost for good; [`Db::recover_preview`] shows in advance what would be lost. A
    /// file whose newest state is whole is not changed. Reads every page in use, so opening takes
    /// as long as reading the file. An error if this process has the database open already.
    /// Default: false.
    pub fn recover(mut self, recover: bool) -> Options {
        self.spec.recover = recover;
        self.spec.replay_to_damage = recover;
        self
    }

    /// Whether pages that are not in memory are read before they are needed. Default:
    /// [`ReadAhead::Auto`].
    pub fn read_ahead(mut self, read_ahead: ReadAhead) -> Options {
        self.spec.read_ahead = Some(read_ahead);
        self
    }

    /// How long a commit of the level [`Eventual`](crate::Durability::Eventual) may be lost by a
    /// power loss: the environment's thread makes it durable within this time. `None`: only
    /// [`Db::sync`], a later `Immediate` commit, a checkpoint, or closing does. Default: one
    /// second.
    pub fn sync_interval(mut self, interval: Option<Duration>) -> Options {
        self.spec.sync_interval = interval;
        self
    }

    /// Pages that are kept only because the last checkpoint needs them, at which the next one
    /// begins. Commits wait for it when a sixteenth more are kept. More pages make the file larger
    /// and checkpoints fewer. Default: as many as the data has, at least 256.
    pub fn checkpoint_pages(mut self, pages: u64) -> Options {
        self.spec.held_pages = Some(pages);
        self
    }

    /// Memory for indexes that lookups use instead of the upper levels of trees, in bytes, for all
    /// tables of this database together. A table that is looked up often gets one, of about 20
    /// bytes for each leaf; with less memory, one of fewer pages of a higher level. Indexes of
    /// older states that read transactions still use are not counted. 0 turns them off. Default: a
    /// 200th of the file, at least 1 MiB. [`Stats::index_bytes`](crate::Stats::index_bytes) says
    /// how much is in use.
    pub fn index_memory(mut self, bytes: u64) -> Options {
        self.spec.index_memory = Some(bytes);
        self
    }

    /// Open to scratch: transactions commit and readers see them, but nothing reaches the file, its
    /// readers and other processes. All changes are lost with the last handle. For tests, and to
    /// see what a change would do. Default: false.
    ///
    /// The database begins with the newest state of the file, which has to exist, and later commits
    /// to the file do not show. It is another one each time that the file is opened to scratch. For
    /// other processes it is a read transaction that lives as long as the handles: it takes no
    /// lock, and what it needs of the file stays in it. Changed pages take memory; all free pages
    /// of the file are listed when it is opened.
    ///
    /// ```
    /// # use mapleaf::{Db, Options, Table};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.mapleaf");
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    /// let db = Db::open(&path)?;
    /// db.write(|txn| txn.table(STOCK)?.insert("pears", 3))?;
    ///
    /// let scratch = Options::new().scratch(true).open(&path)?;
    /// scratch.write(|txn| txn.table(STOCK)?.remove("pears"))?;
    /// assert!(scratch.begin_read()?.table(STOCK)?.is_empty());
    /// assert_eq!(db.begin_read()?.table(STOCK)?.get("pears")?, Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scratch(mut self, scratch: bool) -> Options {
        self.spec.scratch = scratch;
        self
    }

    /// Registers a comparison of keys under a name, for tables whose keys are in this order:
    /// [`Table::ordered_by`](crate::Table::ordered_by). It gets the encoded bytes of two keys.
    ///
    /// The catalog of the file has the name. A table opens only with the order that it was made
    /// with, and only if its comparison is registered. The comparison must always be the same one:
    /// change it only with its name. Without it, opening a file that another program has left after
    /// a crash fails if the commit log has changes of such a table.
    ///
    /// The comparison has to be a total order, without side effects. If it contradicts itself,
    /// searches give wrong answers, a key may be stored twice, and scans may end with
    /// [`Error::Corrupt`](crate::Error::Corrupt); other tables stay sound. A panic in it passes to
    /// the caller. If it happened in a change of a write transaction, this transaction cannot be
    /// committed.
    ///
    /// ```
    /// # use mapleaf::{Options, Result, Table};
    /// const WORDS: Table<&str, u32> = Table::new("words").ordered_by("without case");
    /// fn without_case(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    ///     a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase())
    /// }
    /// let db = Options::new().key_order("without case", without_case).in_memory()?;
    /// db.write(|txn| txn.table(WORDS)?.put_all([("b", 1), ("A", 2), ("C", 3)]))?;
    /// let words = db.begin_read()?.table(WORDS)?;
    /// assert_eq!(words.get("c")?, Some(3));
    /// assert_eq!(words.iter().collect::<Result<Vec<_>>>()?, [("A", 2), ("b", 1), ("C", 3)]);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn key_order(mut self, name: impl Into<String>, compare: fn(&[u8], &[u8]) -> Ordering) -> Options {
        self.spec.key_orders.register(name.into(), compare);
        self
    }

    /// Opens the database at a path.
    ///
    /// # Errors
    /// As [`Db::open`]; `Usage` for an invalid page size or mode.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        open_with(path.as_ref(), &self.spec)
    }

    /// With these comparisons.
    pub(crate) fn key_orders(mut self, orders: &KeyOrders) -> Options {
        self.spec.key_orders = orders.clone();
        self
    }

    pub(crate) fn spec(&self) -> &OpenSpec {
        &self.spec
    }

    /// Creates a database in memory. It is lost with its last handle; with
    /// [`shared_memory`](Options::shared_memory), with the last handle and descriptor of any
    /// process.
    ///
    /// # Errors
    /// As [`Db::in_memory`]; `Usage` for an invalid page size.
    pub fn in_memory(self) -> Result<Db> {
        Ok(Db::of(open::in_memory(&self.spec)?, false))
    }
}
