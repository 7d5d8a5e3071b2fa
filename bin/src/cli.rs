//! The command line: `kvctl VERB FILE [ARGS]`. Each verb is a variant; `cmd` defines its arguments.

use clap::{Parser, Subcommand};

use crate::cmd;
use crate::database::scratch;
use crate::exit::{self, Failure, Outcome};
use crate::format::types;

const EXAMPLES: &str = "\
Examples:
  kvctl put app.mapleaf ada 'Ada Lovelace'
  kvctl get app.mapleaf ada
  kvctl load names.mapleaf data/unicode-names.tsv
  kvctl scan names.mapleaf --prefix U+1F98 --limit 3
  kvctl dump names.mapleaf -o names.tsv
  kvctl --scratch del names.mapleaf --prefix U+1F98

Keys and values on the command line are text of the types of their table; with --hex or --base64 they are bytes. Verbs
that write create a missing file; verbs that read never change a file. 'kvctl help VERB' explains a verb.
";

/// Show and change Mapleaf databases
#[derive(Parser, Debug)]
#[command(name = "kvctl", version, after_help = format!("{EXAMPLES}\n{}\n{}", types::HELP, exit::help()))]
pub(crate) struct Cli {
    /// Change nothing in the file: print what put, del, incr, cas, txn, load or tables would change
    #[arg(long, global = true)]
    scratch: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Store a value under a key
    Put(cmd::put::Args),
    /// Print the value of a key
    Get(cmd::get::Args),
    /// Delete a key, or all keys of a range
    Del(cmd::del::Args),
    /// Add to a number
    Incr(cmd::incr::Args),
    /// Store a value if the present one is as expected
    Cas(cmd::cas::Args),
    /// Apply a batch of checks and changes, whole or not at all
    Txn(cmd::txn::Args),
    /// Print entries in key order
    Scan(cmd::scan::Args),
    /// Load rows from a file or standard input
    Load(cmd::load::Args),
    /// Write all entries as rows that load reads
    Dump(cmd::dump::Args),
    /// Read tables, or a range of keys, into memory
    Warm(cmd::warm::Args),
    /// Print statistics of the database
    Stat(cmd::stat::Args),
    /// Check the whole structure of the file
    Check(cmd::check::Args),
    /// Copy the newest state to a new file with full pages
    Compact(cmd::compact::Args),
    /// Return a cut or damaged file to its newest undamaged state
    Recover(cmd::recover::Args),
    /// Copy every readable entry of a damaged file to a new file
    Salvage(cmd::salvage::Args),
    /// List the tables with their types; create, drop, rename or clear one
    Tables(cmd::tables::Args),
    /// Create, list and drop named snapshots; restore the database to one
    Snapshot(cmd::snapshot::Args),
    /// List the live read transactions of all processes
    Readers(cmd::readers::Args),
    /// Print the meta pages, or the header of a page
    Page(cmd::page::Args),
    /// Measure the speed of a database on a disk
    Bench(cmd::bench::Args),
    /// Kill writing processes and check that no acknowledged commit is lost
    Torture(cmd::torture::Args),
    #[command(hide = true)]
    TortureChild(cmd::torture::ChildArgs),
}

impl Cli {
    /// Runs the verb. With `--scratch`, prints what it would change.
    pub(crate) fn run(self) -> Outcome {
        if !self.scratch {
            return self.verb.run();
        }
        if !self.verb.may_be_scratch() {
            return Err(Failure::usage(
                "--scratch is for verbs that change entries or tables: put, del, incr, cas, txn, load and tables; leave it \
                 out"
                    .to_string(),
            ));
        }
        scratch::begin();
        let done = self.verb.run();
        scratch::report()?;
        done
    }
}

impl Verb {
    /// Whether all that the verb changes is the database, which it opens by `database::open`.
    fn may_be_scratch(&self) -> bool {
        matches!(
            self,
            Verb::Put(_) | Verb::Del(_) | Verb::Incr(_) | Verb::Cas(_) | Verb::Txn(_) | Verb::Load(_) | Verb::Tables(_)
        )
    }

    fn run(self) -> Outcome {
        match self {
            Verb::Put(args) => args.run(),
            Verb::Get(args) => args.run(),
            Verb::Del(args) => args.run(),
            Verb::Incr(args) => args.run(),
            Verb::Cas(args) => args.run(),
            Verb::Txn(args) => args.run(),
            Verb::Scan(args) => args.run(),
            Verb::Load(args) => args.run(),
            Verb::Dump(args) => args.run(),
            Verb::Warm(args) => args.run(),
            Verb::Stat(args) => args.run(),
            Verb::Check(args) => args.run(),
            Verb::Compact(args) => args.run(),
            Verb::Recover(args) => args.run(),
            Verb::Salvage(args) => args.run(),
            Verb::Tables(args) => args.run(),
            Verb::Snapshot(args) => args.run(),
            Verb::Readers(args) => args.run(),
            Verb::Page(args) => args.run(),
            Verb::Bench(args) => args.run(),
            Verb::Torture(args) => args.run(),
            Verb::TortureChild(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_the_definition_of_the_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_several_verbs_have_one_description_unless_they_differ() {
        // `load -t` may rename a table, `tables --json` prints an array, `incr --hex` is about the
        // key only. The others share only a name.
        const DIFFERENT: [&str; 8] = ["base64", "batch", "hex", "json", "raw", "seed", "skip", "table"];
        let mut descriptions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for verb in Cli::command().get_subcommands() {
            for option in verb.get_arguments().filter(|argument| !argument.is_positional()) {
                let name = option.get_long().unwrap_or_default().to_string();
                let help = option.get_help().map(ToString::to_string).unwrap_or_default();
                descriptions.entry(name).or_default().insert(help);
            }
        }
        let several = descriptions.iter().filter(|(_, texts)| texts.len() > 1).map(|(name, _)| name.as_str());
        assert_eq!(several.collect::<Vec<_>>(), DIFFERENT, "{descriptions:?}");
    }

    #[test]
    fn every_verb_has_an_example() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("kvctl {} ", verb.get_name())), "{}", verb.get_name());
        }
    }
}
