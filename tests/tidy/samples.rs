//! Samples that break a rule, and near misses that do not.

use std::collections::BTreeMap;

use super::source::{code_only, comment_of, functions, lines_without_tests, words};
use super::{circles, labels, rules, wording};

/// A rule on one sample: on which lines it finds something.
fn lines(rule: impl Fn(&str, &str) -> Vec<String>, path: &str, text: &str) -> Vec<usize> {
    let line = |finding: &String| finding.split(':').nth(1).and_then(|number| number.parse().ok());
    rule(path, text).iter().map(|finding| line(finding).expect("findings name a line")).collect()
}

#[test]
fn code_only_blanks_comments_and_literals() {
    let text =
        "let a = \"// x\"; // b\nlet c = 'd'; let e: &'f str = r#\"g\"h\"#; /* i /* j */ k\n */ let l = '\\''; b\"m\"";
    let code = code_only(text);
    assert_eq!(code.len(), text.len());
    let kept: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(kept, "let a = ; let c = ; let e: &'f str = ; let l = ; b");
}

#[test]
fn uses_of_higher_floors_are_found() {
    let up = "//! A page.\nuse crate::ids::PageId;\nuse crate::tree::Cursor;\n";
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", up), [3]);
    assert_eq!(lines(rules::floors, "src/tree/scan/cursor.rs", up), []);
    assert_eq!(lines(rules::floors, "src/lib.rs", up), []);
    let of_macro = "$crate::codec::Codec;\nuse crate::codec::Codec;";
    assert_eq!(lines(rules::floors, "src/table/codec/key_struct.rs", of_macro), [2]);
    let mapping = "use crate::mapping::Mapping;";
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", mapping), [1]);
    assert_eq!(lines(rules::floors, "src/tree/path.rs", mapping), [1]);
    assert_eq!(lines(rules::floors, "src/pager/traits.rs", mapping), []);
    assert_eq!(lines(rules::floors, "src/mapping/mod.rs", "use crate::page::leaf::Leaf;"), [1]);
    let group = "use crate::{error::Error, db::{Db, Options}, ids};\nfn f() { crate::txn::begin() }";
    assert_eq!(lines(rules::floors, "src/error.rs", group), [1, 2]);
    assert_eq!(lines(rules::floors, "src/txn/mod.rs", group), [1]);
    assert_eq!(lines(rules::floors, "src/table/mod.rs", group), []);
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", "// crate::tree\nlet a = \"crate::tree\";"), []);
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", "use crate::Db;"), [1]);
    assert_eq!(lines(rules::floors, "src/attic/mod.rs", "//! Old things."), [1]);
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", "use super::super::tree::Cursor;"), [1]);
    assert_eq!(lines(rules::floors, "src/page/leaf.rs", "use super::header::Header;"), []);
    assert_eq!(lines(rules::floors, "src/page/leaf/tests.rs", "use super::super::header::Header;"), []);
}

#[test]
fn uses_of_higher_floors_in_kvctl_are_found() {
    let up = "//! Opens.\nuse crate::exit::Exit;\nuse crate::cmd::args::Answer;\n";
    assert_eq!(lines(rules::floors, "bin/src/database/open.rs", up), [3]);
    assert_eq!(lines(rules::floors, "bin/src/cmd/get.rs", up), []);
    assert_eq!(lines(rules::floors, "bin/src/main.rs", up), []);
    let group = "use crate::{exit, terminal::{escape, output}};\nfn f() { crate::cli::Cli::command() }";
    assert_eq!(lines(rules::floors, "bin/src/format/tsv.rs", group), [1, 2]);
    assert_eq!(lines(rules::floors, "bin/src/usage.rs", group), []);
    assert_eq!(lines(rules::floors, "bin/src/torture/run.rs", "use crate::bench::run::Pace;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/bench/run.rs", "use crate::torture::run::Run;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/cli.rs", "use crate::usage;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/random.rs", "use crate::format::bytes;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/exit.rs", "use crate::page::leaf;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/attic.rs", "//! Old things."), [1]);
    assert_eq!(lines(rules::floors, "bin/src/format/types/mod.rs", "use super::super::cmd::get;"), [1]);
    assert_eq!(lines(rules::floors, "bin/src/format/types/tuples.rs", "use super::super::bytes;"), []);
    assert_eq!(lines(rules::floors, "bin/src/bench/run.rs", "use super::super::cmd::get;"), [1]);
}

#[test]
fn circles_of_files_are_found() {
    let check = |files: &[(&str, &str)]| {
        let texts: Vec<(String, String)> =
            files.iter().map(|(path, text)| (format!("bin/src/{path}"), text.to_string())).collect();
        let wrong = circles::check(&texts);
        wrong.iter().map(|finding| finding.split(": ").next().unwrap_or_default().to_string()).collect::<Vec<_>>()
    };
    let (bytes, tests) = ("use crate::exit::Exit;\n", "#[cfg(test)]\nmod tests {\n    use crate::format::tsv;\n}\n");
    let tsv = ("format/tsv.rs", "//! TSV.\nuse crate::format::bytes;\n");
    assert_eq!(check(&[tsv, ("format/bytes.rs", bytes), ("exit.rs", "")]), [""; 0]);
    assert_eq!(check(&[tsv, ("format/bytes.rs", &format!("{bytes}{tests}"))]), [""; 0]);
    let back = ("format/bytes.rs", "use super::{jsonl, tsv::write_row};\n");
    assert_eq!(check(&[tsv, back]), ["bin/src/format/bytes.rs:1", "bin/src/format/tsv.rs:2"]);
    let (there, long) = (("exit.rs", "fn f() {\n    crate::format::tsv::f()\n}\n"), ("format/bytes.rs", bytes));
    assert_eq!(check(&[tsv, long, there]).len(), 3);
    assert_eq!(check(&[("format/mod.rs", "use tsv::Row;\n"), ("format/tsv.rs", "use super::Kind;\n")]), [""; 0]);
    assert_eq!(check(&[("format/mod.rs", "use super::exit;\n"), ("exit.rs", "use crate::format;\n")]).len(), 2);
    assert_eq!(check(&[("main.rs", "use crate::cli;\n"), ("cli.rs", "use super::*;\nuse crate::cli;\n")]), [""; 0]);
    let paths = rules::paths_of("a::{b, c::{self, D}};");
    assert_eq!(paths.iter().map(|path| path.join("::")).collect::<Vec<_>>(), ["a::b", "a::c::self", "a::c::D"]);
}

#[test]
fn unsafe_code_outside_its_files_is_found() {
    let text = "//! No unsafe here.\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }";
    assert_eq!(lines(rules::unsafe_rooms, "src/page/leaf.rs", text), [3]);
    assert_eq!(lines(rules::unsafe_rooms, "src/sys/memory_calls.rs", text), []);
}

#[test]
fn files_opened_outside_of_descriptor_rs_are_found() {
    let text = "//! Opens.\nlet a = File::open(p)?;\nlet b = OpenOptions::new().read(true).open(p)?;\n\
                let c = descriptor::open(OpenOptions::new().read(true), p)?;\nlet d = fs::read_to_string(p)?;\n\
                #[cfg(test)]\nmod tests {\n    let e = File::open(p)?;\n}\n";
    assert_eq!(lines(rules::opening_room, "src/sys/memory_calls.rs", text), [2, 3, 5]);
    assert_eq!(lines(rules::opening_room, "src/sys/descriptor.rs", text), []);
    assert_eq!(lines(rules::opening_room, "tests/it/limits.rs", text), []);
}

#[test]
fn a_file_without_a_header_is_found() {
    assert_eq!(lines(rules::header, "a.rs", "use std::io;\n//! Late."), [1]);
    assert_eq!(lines(rules::header, "a.rs", "//! In time.\nuse std::io;"), []);
}

#[test]
fn names_of_operations_that_break_off_are_found() {
    let text = "Error::io(\"flushing the file\", path, e)\nError::io(\"dropping the cached pages of\", path, e)";
    assert_eq!(lines(rules::operations, "src/a.rs", text), [2]);
}

#[test]
fn characters_other_than_ascii_are_found() {
    assert_eq!(lines(rules::ascii, "a.rs", "plain\ndash \u{2014}\n"), [2]);
}

#[test]
fn long_files_are_found() {
    let long = "line\n".repeat(501);
    assert_eq!(lines(rules::file_length, "src/a.rs", &long), [501]);
    assert_eq!(lines(rules::file_length, "src/a/tests.rs", &long), []);
    let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "line\n".repeat(500));
    assert_eq!(lines(rules::file_length, "src/a.rs", &with_tests), []);
    let declared = format!("#[cfg(test)]\nmod tests;\n{long}");
    assert_eq!(lines_without_tests(&declared), 503);
}

#[test]
fn long_functions_are_found() {
    let long = format!("fn short() {{\n}}\n\nfn long(a: u8) -> u8 {{\n{}}}\n", "    a;\n".repeat(59));
    assert_eq!(lines(rules::function_length, "src/a.rs", &long), [4]);
    let measured =
        functions(&code_only("trait T { fn none(&self); }\nfn two() {\n    // }\n    f(\"}\") }\nfn one() {}"));
    assert_eq!(measured, [("two".to_string(), 2, 3), ("one".to_string(), 5, 1)]);
}

#[test]
fn bare_matches_are_found() {
    let bare = "fn f() {\n    matches!(a, B);\n    let c = matches!(a, B);\n    matches!(\n        a,\n        B(_)\n    );\n}";
    assert_eq!(lines(rules::bare_matches, "a.rs", bare), [2, 4]);
    assert_eq!(
        lines(rules::bare_matches, "a.rs", "fn f() -> bool {\n    assert!(matches!(a, B));\n    matches!(a, B)\n}"),
        []
    );
}

#[test]
fn unfinished_code_is_found() {
    let text =
        "fn f() {\n    todo!()\n}\nfn g() {\n    dbg!(1);\n    unimplemented!(\"x\")\n}\n// todo!\nlet todo = 1;";
    assert_eq!(lines(rules::unfinished, "a.rs", text), [2, 6, 5]);
}

#[test]
fn pictures_without_a_fence_are_found() {
    let text = "//! A page:\n//!\n//!     | header |\n//!     | rest |\n//!\n//! ```text\n//!\n//!     | a |\n//! ```\n//! Lists:\n//!   A1  one\n//!       and more\n";
    assert_eq!(lines(rules::pictures, "a.rs", text), [3]);
}

#[test]
fn retired_terms_are_found() {
    let text =
        "// An outbox, a node.\nstruct LeafNode;\nlet outbox_len = 1;\nlet inode = \"outbox\";\nlet page_shift = 1;\n";
    assert_eq!(lines(wording::identifiers, "a.rs", text), [2, 3]);
    assert_eq!(lines(wording::identifiers, "a.rs", "fn run() {}\nstruct Run;\nlet run = 1;\n"), [2]);
    assert_eq!(lines(|path, _| wording::file_name(path), "src/pager/outbox.rs", ""), [1]);
    assert_eq!(lines(|path, _| wording::file_name(path), "src/pager/write/write_queue.rs", ""), []);
    let table = "| word | meaning |\n|---|---|\n| write queue | once the outbox |\n| desk | private page |\n";
    assert_eq!(lines(wording::defined_terms, "docs/glossary.md", table), [4]);
    let found: Vec<String> = words("HTTPServer leaf_page x2").into_iter().map(|(_, word)| word).collect();
    assert_eq!(found, ["httpserver", "leaf", "page", "x2"]);
}

#[test]
fn phrases_to_avoid_are_found() {
    let text = "// Whoever waits.\nlet alone = \"behind\"; // Read alone.\n// The file system and the kernel.\n// leaves stand-alone\n";
    assert_eq!(lines(wording::phrases_in_comments, "a.rs", text), [1, 2, 4]);
    assert_eq!(lines(wording::phrases, "a.md", "The system waits.\nAfter that.\nIt comes\nbehind.\n"), [1, 4]);
}

#[test]
fn wide_comments_are_found() {
    let wide = format!("// {}\nlet a = \"{}\";\n    /// {}\n", "x".repeat(97), "y".repeat(110), "z".repeat(93));
    assert_eq!(lines(wording::comment_width, "a.rs", &wide), [3]);
}

#[test]
fn labels_defined_twice_or_nowhere_are_found() {
    let text = |path: &str, text: &str| (path.to_string(), text.to_string());
    let design =
        text("docs/design.md", "**R1. A committed page does not change** before it is free.\n- **P7.** A page.\n");
    let window =
        text("src/mapping/window.rs", "//! Windows.\n//!\n//! Invariants:\n//!   WIN-1  one window.\n\n// R1, WIN-1\n");
    assert_eq!(labels::check(&[design.clone(), window.clone()]), [""; 0]);
    let twice = text("src/a.rs", "//! A.\n//!   WIN-1  another.\n");
    assert_eq!(labels::check(&[design.clone(), window.clone(), twice]).len(), 1);
    let unknown = text("src/b.rs", "//! B (WIN-3, R2, P8).\nlet a = \"WIN-9\"; // CRC-32, UTF-8, P7\n");
    assert_eq!(labels::check(&[design, window, unknown]).len(), 3);
    assert_eq!(labels::cited("a.md", "(WIN-2)").len(), 1);
    assert_eq!(labels::defined("a.rs", "//!   WIN-2  text").len(), 1);
}

#[test]
fn only_the_comment_of_a_line_is_returned() {
    assert_eq!(comment_of("let a = 1; // one"), "// one");
    assert_eq!(comment_of("    /// two"), "/// two");
    assert_eq!(comment_of("let url = \"https://a\";"), "");
}

#[test]
fn paths_that_do_not_exist_are_found() {
    let text = "See `src/page/`, [it](docs/format.md) and benches/gone.\ncd \"$root/target\" && /usr/bin/cc https://a.b/c *.rs\ncargo test -p bin/x Cargo.toml\n";
    let exists = |path: &str| ["src/page/", "docs/format.md", "Cargo.toml"].contains(&path);
    assert_eq!(lines(|path, text| rules::paths_exist(path, text, exists), "README.md", text), [1, 3]);
}

#[test]
fn tables_that_differ_from_the_layout_are_found() {
    let source =
        "const A: usize = 0;\n/// B.\npub(crate) const B: usize = A + 4;\nmod m {\n    const A: u32 = 0x10;\n}\n\
                  const C: usize = 2 * B + 0x10;\nconst _: () = assert!(A == 0);\nconst fn f() { let d = 5; }";
    let source: BTreeMap<String, u64> = rules::constants(source);
    let expected = [("A", 0), ("B", 4), ("C", 24), ("m::A", 16)];
    assert_eq!(source, expected.map(|(name, value)| (name.to_string(), value)).into());
    let good =
        "| offset | field |\n|---|---|\n| 0 | a | `A` |\n| 4 | b | `B` |\n| 24 | c | `C` |\n| 16 | d | `m::A` |\n";
    let check = |path: &str, text: &str| rules::format_agrees(path, text, &source);
    assert_eq!(lines(check, "docs/format.md", good), []);
    assert_eq!(lines(check, "docs/format.md", &good.replace("| 4 |", "| 5 |")), [4]);
    assert_eq!(lines(check, "docs/format.md", &good.replace("`B`", "`D`")), [4, 7]);
    assert_eq!(lines(check, "docs/format.md", &good.replace("| 24 | c | `C` |\n", "")), [6]);
}
