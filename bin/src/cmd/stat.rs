//! `stat`: prints statistics of a database: sizes, processes, what pins pages, and with `--pages`
//! where all pages are.

use mapleaf::{MemberInfo, PageCache, Pin, PinnedBy, Presence, Space, Stats, TreeSpace};
use serde_json::{json, Map, Value};

use crate::cmd::args::{Answer, ExistingFile};
use crate::database::findings;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl stat names.mapleaf
  kvctl stat names.mapleaf --pages
  kvctl stat names.mapleaf --json

'pinned by' names each read transaction and checkpoint that keeps freed pages from being used again: how many pages its
state reaches, and how many of them come back when only it goes. 'resident' and 'dirty' count the page cache of the kernel.

--pages reads every branch and leaf, which takes as long as a scan of all tables. It prints a line for each table, for the
catalog and for the free space: branch, leaf and overflow pages, and fill, the part of their bytes that is in use.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    /// Count the pages by table and kind
    #[arg(long)]
    pages: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Named figures, in the order in which they are printed.
type Figures = Vec<(&'static str, Value)>;

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let failed = |error| Failure::of_database(error, &self.file.path);
        let stats = db.stats().map_err(failed)?;
        let cache = db.page_cache().map_err(failed)?;
        let space = self.pages.then(|| db.space()).transpose().map_err(failed)?;
        let remarks = db.slot_remarks().map_err(failed)?;
        let mut figures = vec![("file", json!(self.file.path.to_string_lossy()))];
        figures.extend(figures_of(&stats, &cache));
        let mut output = Output::stdout();
        if self.answer.json {
            figures.extend(lists_of(&stats));
            figures.extend(space.as_ref().map(|space| ("pages", json_of_space(space))));
            figures.push(("remarks", findings::json_of_all(&remarks)));
            let object: Map<String, Value> =
                figures.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            output.write(format!("{}\n", Value::Object(object)).as_bytes())?;
        } else {
            output.write(text_of(&figures).as_bytes())?;
            output.write(stats.members.iter().skip(1).map(text_of_member).collect::<String>().as_bytes())?;
            output.write(stats.pins.iter().map(text_of_pin).collect::<String>().as_bytes())?;
            output.write(space.as_ref().map(text_of_space).unwrap_or_default().as_bytes())?;
            output.write(findings::notes(&remarks).as_bytes())?;
        }
        output.finish()?;
        Ok(Exit::Done)
    }
}

fn figures_of(stats: &Stats, cache: &PageCache) -> Figures {
    vec![
        ("format_version", json!(stats.format_version)),
        ("uuid", json!(uuid_text(&stats.uuid))),
        ("file_bytes", json!(stats.file_bytes)),
        ("disk_bytes", json!(stats.disk_bytes)),
        ("page_size", json!(stats.page_size)),
        ("page_count", json!(stats.page_count)),
        ("free_pages", json!(stats.free_pages)),
        ("pending_pages", json!(stats.pending_pages)),
        ("unpinned_pages", json!(stats.unpinned_pages)),
        ("txn", json!(stats.txn)),
        ("tables", json!(stats.tables)),
        ("entries", json!(stats.entries)),
        ("processes", json!(stats.processes)),
        ("presence", json!(presence(stats.presence))),
        ("why_exclusive", json!(stats.why_exclusive)),
        ("session", json!(stats.session.map(|session| format!("{session:016x}")))),
        ("readers", json!(stats.readers)),
        ("used_bytes", json!(stats.used_bytes)),
        ("mapped_bytes", json!(stats.mapped_bytes)),
        ("reserved_bytes", json!(stats.reserved_bytes)),
        ("index_bytes", json!(stats.index_bytes)),
        ("resident_bytes", json!(cache.resident_bytes)),
        ("dirty_bytes", json!(cache.dirty_bytes)),
        ("log_pages", json!(stats.log_pages)),
        ("log_bytes", json!(stats.log_pages * u64::from(stats.page_size))),
        ("log_used_bytes", json!(stats.log_used_bytes)),
    ]
}

/// How kvctl itself has the database open.
fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Member => "member",
        Presence::PlainReader => "plain reader",
        Presence::Scratch => "scratch",
        _ => "exclusive",
    }
}

/// The processes beside kvctl, and the pins.
fn lists_of(stats: &Stats) -> Figures {
    let member = |member: &MemberInfo| json!({ "process": member.process, "writes": member.writes });
    vec![
        ("members", stats.members.iter().skip(1).map(member).collect()),
        ("pins", stats.pins.iter().map(json_of_pin).collect()),
    ]
}

/// The figures as lines. What is not known is left out.
fn text_of(figures: &Figures) -> String {
    let mut text = String::new();
    for (name, value) in figures.iter().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
        text.push_str(&format!("{:<15} {value}\n", name.replace('_', " ")));
    }
    text
}

fn text_of_member(member: &MemberInfo) -> String {
    let does = if member.writes { "may write" } else { "only reads" };
    format!("{:<15} process {}, which {does}\n", "member", member.process)
}

fn text_of_pin(pin: &Pin) -> String {
    let by = match &pin.by {
        PinnedBy::Reader { process, label } if label.is_empty() => format!("a reader of process {process}"),
        PinnedBy::Reader { process, label } => format!("the reader '{}' of process {process}", label.escape_debug()),
        PinnedBy::RunningCheckpoint => "a running checkpoint".to_string(),
        PinnedBy::Snapshot { name } => format!("the snapshot '{}'", name.escape_debug()),
        _ => "the last checkpoint".to_string(),
    };
    let Pin { txn, pages, only_pages, .. } = pin;
    format!("{:<15} {by}: pages {pages}, only by it {only_pages}, transaction {txn}\n", "pinned by")
}

fn json_of_pin(pin: &Pin) -> Value {
    let (by, process, label) = match &pin.by {
        PinnedBy::Reader { process, label } => ("reader", Some(process), Some(label)),
        PinnedBy::RunningCheckpoint => ("running checkpoint", None, None),
        PinnedBy::Snapshot { name } => ("snapshot", None, Some(name)),
        _ => ("last checkpoint", None, None),
    };
    let (txn, pages, only_pages) = (pin.txn, pin.pages, pin.only_pages);
    json!({ "by": by, "process": process, "label": label, "txn": txn, "pages": pages, "only_pages": only_pages })
}

/// The trees of a state by their names for people.
fn trees(space: &Space) -> impl Iterator<Item = (String, &TreeSpace)> {
    let tables = space.tables.iter().map(|tree| (format!("table '{}'", tree.name.escape_debug()), tree));
    let snapshots = Some(("snapshots".to_string(), &space.snapshots)).filter(|(_, tree)| tree.entries > 0);
    let others = [("catalog".to_string(), &space.catalog), ("free space".to_string(), &space.free_space)];
    tables.chain(others).chain(snapshots)
}

fn text_of_space(space: &Space) -> String {
    let mut text = String::new();
    for (name, pages) in [
        ("meta pages", space.meta_pages),
        ("free list pages", space.free_list_pages),
        ("snapshot pages", space.snapshot_pages),
        ("branch pages", trees(space).map(|(_, tree)| tree.branch_pages).sum()),
        ("leaf pages", trees(space).map(|(_, tree)| tree.leaf_pages).sum()),
        ("overflow pages", trees(space).map(|(_, tree)| tree.overflow_pages).sum()),
    ] {
        text.push_str(&format!("{name:<15} {pages}\n"));
    }
    for (name, tree) in trees(space) {
        let TreeSpace { entries, depth, branch_pages, leaf_pages, overflow_pages, .. } = tree;
        let fill = 100.0 * tree.fill(space.page_size);
        text.push_str(&format!(
            "{name}: entries {entries}, depth {depth}, pages {}: branch {branch_pages}, leaf {leaf_pages}, overflow \
             {overflow_pages}; fill {fill:.1} %\n",
            tree.pages()
        ));
    }
    text
}

fn json_of_space(space: &Space) -> Value {
    let tree = |tree: &TreeSpace| {
        json!({
            "name": tree.name,
            "entries": tree.entries,
            "depth": tree.depth,
            "pages": tree.pages(),
            "branch_pages": tree.branch_pages,
            "leaf_pages": tree.leaf_pages,
            "overflow_pages": tree.overflow_pages,
            "branch_bytes": tree.branch_bytes,
            "leaf_bytes": tree.leaf_bytes,
            "overflow_bytes": tree.overflow_bytes,
            "fill": tree.fill(space.page_size),
        })
    };
    json!({
        "txn": space.txn,
        "page_count": space.page_count,
        "meta_pages": space.meta_pages,
        "free_list_pages": space.free_list_pages,
        "log_pages": space.log_pages,
        "free_pages": space.free_pages,
        "pending_pages": space.pending_pages,
        "snapshot_pages": space.snapshot_pages,
        "tables": space.tables.iter().map(tree).collect::<Vec<Value>>(),
        "catalog": tree(&space.catalog),
        "free_space": tree(&space.free_space),
        "snapshots": tree(&space.snapshots),
    })
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_printed_in_groups() {
        let uuid = std::array::from_fn(|i| u8::try_from(i * 17).unwrap());
        assert_eq!(super::uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
