//! `snapshot`: creates, lists and drops named snapshots, and restores a database to one.

use std::path::Path;
use std::time::SystemTime;

use mapleaf::{Db, SnapshotInfo};
use serde_json::{json, Value};

use crate::cmd::args::{Accepted, Answer, ExistingFile};
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::tsv;
use crate::format::types;
use crate::terminal::confirm;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl snapshot create app.mapleaf before-migration
  kvctl snapshot list app.mapleaf
  kvctl snapshot restore app.mapleaf before-migration --yes
  kvctl snapshot drop app.mapleaf before-migration --yes
  kvctl get app.mapleaf ada --snapshot before-migration

A snapshot keeps the state of all tables under a name until it is dropped. Pages that change after it are kept, so the file
gets longer. 'compact' and 'salvage' copy no snapshots.
";

const CREATE_EXAMPLES: &str = "\
Examples:
  kvctl snapshot create app.mapleaf before-migration

Copies nothing: it takes as long as a small commit. Exits with 2 if there is a snapshot of this name.
";

const LIST_EXAMPLES: &str = "\
Examples:
  kvctl snapshot list app.mapleaf
  kvctl snapshot list app.mapleaf --json

Prints TSV: name, transaction whose state it keeps, time of its creation, pages that it keeps from being used again, those of
them that no other snapshot keeps.
";

const DROP_EXAMPLES: &str = "\
Examples:
  kvctl snapshot drop app.mapleaf before-migration --yes

Asks before it drops; without a terminal it needs --yes, or else exits with 2 and changes nothing. Exits with 1 if there is no
such snapshot. A process may read the snapshot until its read transaction ends.
";

const RESTORE_EXAMPLES: &str = "\
Examples:
  kvctl snapshot create app.mapleaf undo
  kvctl snapshot restore app.mapleaf before-migration --yes

All tables become as they were in the snapshot, in one transaction; all snapshots stay. What was changed since is lost, unless
another snapshot keeps it. Asks first; without a terminal it needs --yes, or else exits with 2 and changes nothing. Exits with 1
if there is no such snapshot.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Keep the newest state under a name
    Create(Create),
    /// List the snapshots, and the pages that each keeps
    List(List),
    /// Drop a snapshot
    Drop(Discard),
    /// Make the state of a snapshot the newest one
    Restore(Restore),
}

#[derive(clap::Args, Debug)]
#[command(after_help = CREATE_EXAMPLES)]
struct Create {
    #[command(flatten)]
    file: ExistingFile,
    /// Name of the new snapshot
    name: String,
}

#[derive(clap::Args, Debug)]
#[command(after_help = LIST_EXAMPLES)]
#[command(mut_arg("json", |json| json.help("Print a JSON array of objects")))]
struct List {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    answer: Answer,
}

#[derive(clap::Args, Debug)]
#[command(after_help = DROP_EXAMPLES)]
struct Discard {
    #[command(flatten)]
    named: Named,
}

/// The snapshot that an action discards, or discards newer changes for.
#[derive(clap::Args, Debug)]
struct Named {
    #[command(flatten)]
    file: ExistingFile,
    /// Name of the snapshot
    name: String,
    #[command(flatten)]
    accepted: Accepted,
}

#[derive(clap::Args, Debug)]
#[command(after_help = RESTORE_EXAMPLES)]
struct Restore {
    #[command(flatten)]
    named: Named,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        match self.action {
            Action::Create(create) => create.run(),
            Action::List(list) => list.run(),
            Action::Drop(discard) => discard.named.drop(),
            Action::Restore(restore) => restore.named.restore(),
        }
    }
}

impl Create {
    fn run(self) -> Outcome {
        let db = to_write(&self.file.path)?;
        db.create_snapshot(&self.name).map_err(|error| Failure::of_database(error, &self.file.path))?;
        Ok(Exit::Done)
    }
}

impl Named {
    fn drop(self) -> Outcome {
        let (path, name) = (&self.file.path, &self.name);
        let db = to_write(path)?;
        self.ask(&db, &format!("drop snapshot '{name}'?"), &format!("drops snapshot '{name}'"))?;
        db.drop_snapshot(name).map_err(|error| Failure::of_database(error, path))?;
        Ok(Exit::Done)
    }

    fn restore(self) -> Outcome {
        let (path, name) = (&self.file.path, &self.name);
        let db = to_write(path)?;
        let yes = format!("discards all changes since snapshot '{name}'");
        self.ask(&db, &format!("discard all changes since snapshot '{name}'?"), &yes)?;
        db.restore_snapshot(name).map_err(|error| Failure::of_database(error, path))?;
        Ok(Exit::Done)
    }

    /// Asks before something is discarded, if there is such a snapshot. A damaged record of another
    /// snapshot does not matter.
    fn ask(&self, db: &Db, question: &str, yes: &str) -> Result<(), Failure> {
        let path = self.file.path.display();
        if db.snapshots().is_ok_and(|found| found.iter().all(|other| other.name != self.name)) {
            let text = format!("{path}: no snapshot '{}'; 'kvctl snapshot list' lists them", self.name);
            return Err(Failure::new(Exit::No, text));
        }
        match self.accepted.yes {
            true => Ok(()),
            false => confirm::ask(question, &format!("{path}: not changed"), yes),
        }
    }
}

fn to_write(path: &Path) -> Result<Db, Failure> {
    Db::open_existing(path).map_err(|error| Failure::of_database(error, path))
}

impl List {
    fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let snapshots = db.snapshots().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let mut output = Output::stdout();
        if self.answer.json {
            let array: Vec<Value> = snapshots.iter().map(json_of).collect();
            output.write(format!("{}\n", Value::Array(array)).as_bytes())?;
        } else {
            for SnapshotInfo { name, txn, created, pinned_pages, only_pages, .. } in &snapshots {
                let mut line = Vec::new();
                tsv::escape_key(name.as_bytes(), &mut line);
                let created = time_text(*created);
                line.extend(format!("\t{txn}\t{created}\t{pinned_pages}\t{only_pages}\n").into_bytes());
                output.write(&line)?;
            }
        }
        output.finish()?;
        Ok(Exit::Done)
    }
}

/// A time as text, in UTC.
fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    types::utc_text(seconds, since.subsec_nanos()).unwrap_or_default()
}

/// A snapshot as an object.
fn json_of(snapshot: &SnapshotInfo) -> Value {
    json!({
        "name": snapshot.name,
        "txn": snapshot.txn,
        "created": time_text(snapshot.created),
        "pinned_pages": snapshot.pinned_pages,
        "only_pages": snapshot.only_pages,
    })
}
