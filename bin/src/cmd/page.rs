//! `page`: prints the meta pages, or the header of a page.
//!
//! Text has one line per field. The copies of the meta pages are columns, so that a difference
//! between them shows. The header of a page is printed as it stands: its checksum is not verified.

use std::path::Path;

use mapleaf::inspect::{self, MetaInfo, PageInfo};
use mapleaf::{Db, Error, ErrorKind, Finding, PageId};
use serde_json::{json, Value};

use crate::cmd::args::{Answer, ExistingFile};
use crate::database::{findings, open};
use crate::exit::{Exit, Failure, Outcome};
use crate::numbers;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl page names.mapleaf
  kvctl page names.mapleaf 1
  kvctl page names.mapleaf 5 --json

Without PAGE, prints the copies of the meta pages, 0 and 1: their state, and the extent, epoch and log start of the commit
log. With PAGE 0 or 1, prints the copies of that one. With another PAGE, prints its header. A page of the commit log has no
header: the records that begin at its start are counted, and 'first txn' and 'checksum' ('txn' and 'checksum' in JSON) are
those of the first. If the database was not closed, its log is replayed in memory, and the pages of the replay follow those
of the file. 'kvctl check' verifies pages; this verb does not.
";

/// Pages from 0 that are meta pages.
const META_PAGES: u64 = 2;

/// The kind of a page of the commit log.
const LOG: &str = "commit log";

/// Names and values, in the order of the output. Text shows `_` as a space.
type Fields = Vec<(&'static str, Value)>;

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    /// Number of a page, from 0; without it, both meta pages
    #[arg(value_name = "PAGE", value_parser = numbers::whole, allow_negative_numbers = true)]
    page: Option<u64>,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let text = match self.page {
            Some(page) if page >= META_PAGES => self.header(&db, page)?,
            slot => self.meta_pages(&db, slot)?,
        };
        let mut output = Output::stdout();
        output.write(text.as_bytes())?;
        output.finish()?;
        Ok(Exit::Done)
    }

    /// The copies of both meta pages, or of one.
    fn meta_pages(&self, db: &Db, slot: Option<u64>) -> Result<String, Failure> {
        let failed = |error| Failure::of_database(error, &self.file.path);
        let is_wanted = |of: u64| slot.is_none_or(|slot| slot == of);
        let mut metas = inspect::metas(db).map_err(failed)?;
        metas.retain(|meta| is_wanted(meta.slot.into()));
        let mut remarks = db.slot_remarks().map_err(failed)?;
        remarks.retain(|remark| remark.page.is_none_or(|page| is_wanted(page.0)));
        match (slot, metas.is_empty()) {
            (Some(slot), true) => Err(unreadable(slot, &self.file.path)),
            _ if self.answer.json => Ok(format!("{}\n", json_of_metas(&self.file.path, &metas, &remarks))),
            _ => Ok(format!("{}{}", columns(&metas), findings::notes(&remarks))),
        }
    }

    fn header(&self, db: &Db, page: u64) -> Result<String, Failure> {
        let info = inspect::page(db, PageId(page)).map_err(|error| no_header(error, &self.file.path))?;
        match self.answer.json {
            true => Ok(format!("{}\n", json_of_page(&self.file.path, &info))),
            false => Ok(fields_of_page(&info).into_iter().map(|(name, value)| line(name, &[value], 0)).collect()),
        }
    }
}

/// The failure if no copy of a meta page can be read. The other meta page has a state, because the
/// database was opened.
fn unreadable(slot: u64, path: &Path) -> Failure {
    let what = "no copy of this meta page can be read; 'kvctl check FILE' says what may be lost with it";
    Failure::new(Exit::File, format!("{}: page {slot}: {what}", path.display()))
}

/// The failure for a page whose header cannot be read, or that does not exist.
fn no_header(error: Error, path: &Path) -> Failure {
    match error.kind() {
        ErrorKind::Usage => Failure::of_database(error, path).append("0 and 1 are the meta pages"),
        ErrorKind::Corrupt => Failure::new(Exit::File, error.to_string()).of_file(path).append(
            "free pages, and all pages of an extent but its first, have no header; 'kvctl check FILE' lists all damage",
        ),
        _ => Failure::of_database(error, path),
    }
}

fn fields_of_meta(meta: &MetaInfo) -> Fields {
    vec![
        ("slot", json!(meta.slot)),
        ("copy", json!(meta.copy)),
        ("txn", json!(meta.txn)),
        ("page_count", json!(meta.page_count)),
        ("catalog_root", json!(meta.catalog_root)),
        ("free_space_root", json!(meta.free_space_root)),
        ("log_first", json!(meta.log_first)),
        ("log_pages", json!(meta.log_pages)),
        ("log_epoch", json!(meta.log_epoch)),
        ("log_start", json!(meta.log_start)),
        ("snapshots_root", json!(meta.snapshots_root)),
    ]
}

/// The fields of a page as text: those that its kind has, by their names there.
fn fields_of_page(info: &PageInfo) -> Fields {
    let (count, txn) = match info.kind {
        "leaf" => ("entries", "txn"),
        "branch" => ("children", "txn"),
        LOG => ("records", "first_txn"),
        _ => ("count", "txn"),
    };
    let mut fields = vec![
        ("page", json!(info.id.0)),
        ("kind", json!(info.kind)),
        ("level", json!(info.level)),
        (count, json!(info.count)),
        (txn, json!(info.txn)),
        ("tree_id", json!(info.tree_id)),
        ("checksum", json!(info.checksum)),
    ];
    fields.retain(|(name, _)| info.kind != LOG || !matches!(*name, "level" | "tree_id"));
    fields
}

/// One line per field, one column per copy.
fn columns(metas: &[MetaInfo]) -> String {
    let all: Vec<Fields> = metas.iter().map(fields_of_meta).collect();
    let width = all.iter().flatten().map(|(_, value)| value.to_string().len()).max().unwrap_or_default();
    let names = all.first().into_iter().flatten().map(|(name, _)| *name);
    let values = |at: usize| all.iter().filter_map(move |fields| Some(fields.get(at)?.1.clone())).collect::<Vec<_>>();
    names.enumerate().map(|(at, name)| line(name, &values(at), width)).collect()
}

fn line(name: &str, values: &[Value], width: usize) -> String {
    let shown = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_string));
    let shown: Vec<String> = shown.map(|value| format!("{value:>width$}")).collect();
    format!("{:<15} {}\n", name.replace('_', " "), shown.join("  "))
}

fn json_of_metas(path: &Path, metas: &[MetaInfo], remarks: &[Finding]) -> Value {
    let object =
        |meta| -> Value { fields_of_meta(meta).into_iter().map(|(name, it)| (name.to_string(), it)).collect() };
    json!({
        "file": path.to_string_lossy(),
        "metas": metas.iter().map(object).collect::<Vec<_>>(),
        "remarks": findings::json_of_all(remarks),
    })
}

fn json_of_page(path: &Path, info: &PageInfo) -> Value {
    json!({
        "file": path.to_string_lossy(),
        "page": info.id.0,
        "kind": info.kind,
        "level": info.level,
        "count": info.count,
        "txn": info.txn,
        "tree_id": info.tree_id,
        "checksum": info.checksum,
    })
}
