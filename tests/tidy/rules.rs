//! The rules. Each takes a path and a text and returns what is wrong, as `path:line: what`.

use std::collections::BTreeMap;

use super::source::{code_only, find_token, functions, is_word, line_of, lines_without_tests, matching};

/// The modules of a crate, by floors: a module uses its own floor and lower ones.
struct CrateFloors {
    source: &'static str,
    root: &'static str,
    floors: &'static [&'static [&'static str]],
    /// The first of a pair uses nothing of the second, although the floors would allow it.
    apart: &'static [(&'static str, &'static str)],
}

const LIBRARY: CrateFloors = CrateFloors {
    source: "src/",
    root: "lib",
    floors: &[
        &["ids", "limits", "error", "hooks"],
        &["sys"],
        &["mapping", "page"],
        &["pager"],
        &["tree"],
        &["catalog"],
        &["txn"],
        &["db", "inspect"],
        &["table"],
        // What only tests need; nothing else may use it.
        &["testing"],
    ],
    // Pages and trees are bytes: they know nothing of a mapping, and a mapping nothing of what is in a page.
    apart: &[("page", "mapping"), ("tree", "mapping"), ("mapping", "page")],
};

/// The floors of `kvctl`, as the header of bin/src/main.rs shows them.
const KVCTL: CrateFloors = CrateFloors {
    source: "bin/src/",
    root: "main",
    floors: &[
        &["exit", "numbers", "random"],
        &["format"],
        &["terminal"],
        &["database"],
        &["bench", "torture"],
        &["cmd"],
        &["cli", "usage"],
    ],
    // The two verbs with parts of their own share nothing, and the command line does not know how its errors are shown.
    apart: &[("bench", "torture"), ("torture", "bench"), ("cli", "usage")],
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;

pub(crate) fn at(path: &str, line: usize, what: impl std::fmt::Display) -> String {
    format!("{path}:{line}: {what}")
}

impl CrateFloors {
    fn floor_of(&self, module: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&module))
    }
}

/// The crate and the module of a file. `src/page/leaf.rs` and `src/page.rs` belong to `page`; `src/lib.rs` to no module.
fn home_of(path: &str) -> Option<(&'static CrateFloors, &str)> {
    let (owner, rest) =
        [&LIBRARY, &KVCTL].into_iter().find_map(|owner| Some((owner, path.strip_prefix(owner.source)?)))?;
    let module = rest.split('/').next()?.trim_end_matches(".rs");
    (module != owner.root).then_some((owner, module))
}

pub(crate) fn module_of(path: &str) -> Option<&str> {
    home_of(path).map(|(_, module)| module)
}

/// Floors: a file uses `crate::<module>` only of its own floor and lower ones, and by the module's name.
pub(crate) fn floors(path: &str, text: &str) -> Vec<String> {
    let Some((owner, module)) = home_of(path) else { return Vec::new() };
    let Some(own) = owner.floor_of(module) else { return vec![at(path, 1, format!("module `{module}` has no floor"))] };
    let code = code_only(text);
    let mut wrong = Vec::new();
    // A macro for users takes the paths that they can take.
    for (line, start) in find_token(&code, "crate").into_iter().filter(|(_, start)| !code[..*start].ends_with('$')) {
        for used in first_names(&code[start + "crate".len()..]) {
            match owner.floor_of(&used) {
                Some(_) if owner.apart.contains(&(module, used.as_str())) => {
                    wrong.push(at(path, line, format!("`{module}` uses `{used}`, of which it knows nothing")));
                }
                Some(floor) if floor <= own => {}
                Some(floor) => wrong.push(at(path, line, format!("floor {own} uses `{used}` of floor {floor}"))),
                None => wrong.push(at(path, line, format!("`crate::{used}`: name the module that it stands in"))),
            }
        }
    }
    wrong.extend(climbing(path, &code));
    wrong
}

/// The names right after `crate`: one, or several in a group.
fn first_names(after: &str) -> Vec<String> {
    let Some(path) = after.strip_prefix("::") else { return Vec::new() };
    let mut names: Vec<String> = paths_of(path).into_iter().filter_map(|path| path.into_iter().next()).collect();
    names.dedup();
    names
}

/// The paths at the start of `text`, by their names: `a::b` is one, `a::{b, c::d}` are two.
pub(crate) fn paths_of(text: &str) -> Vec<Vec<String>> {
    if text.starts_with('{') {
        let group = &text[1..matching(text, 0).unwrap_or(text.len())];
        return items_of(group).into_iter().flat_map(|item| paths_of(item.trim())).collect();
    }
    let name = name_at(text);
    if name.is_empty() {
        return Vec::new();
    }
    let further = text[name.len()..].strip_prefix("::").map(paths_of).unwrap_or_default();
    match further.is_empty() {
        true => vec![vec![name]],
        false => further.into_iter().map(|path| [vec![name.clone()], path].concat()).collect(),
    }
}

/// The items of a group, which commas separate.
fn items_of(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (index, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                items.push(&group[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    items.push(&group[start..]);
    items
}

fn name_at(text: &str) -> String {
    text.bytes().take_while(|&byte| is_word(byte)).map(char::from).collect()
}

/// `super::super` that leads out of the module would get past the floors.
fn climbing(path: &str, code: &str) -> Vec<String> {
    let inner = path.trim_start_matches("bin/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inner.matches('/').count();
    let climb = "super::".repeat(depth);
    find_token(code, climb.trim_end_matches("::"))
        .into_iter()
        .filter(|_| depth > 0)
        .map(|(line, _)| at(path, line, format!("`{climb}` leaves the module: write `crate::`")))
        .filter(|_| depth > 1)
        .collect()
}

/// The word `unsafe` stands only in `sys`, in `mapping` and in the vector search of `page`.
pub(crate) fn unsafe_rooms(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/sys/")
        || path.starts_with("src/mapping/")
        || path == "src/page/heads.rs"
        || path == "src/page/heads/x86.rs"
    {
        return Vec::new();
    }
    let places = find_token(&code_only(text), "unsafe");
    places
        .into_iter()
        .map(|(line, _)| at(path, line, "`unsafe` outside src/sys/, src/mapping/ and src/page/heads"))
        .collect()
}

/// Files are opened in one room, which keeps them off the standard descriptors.
pub(crate) fn opening_room(path: &str, text: &str) -> Vec<String> {
    let elsewhere = path.starts_with("src/") && path != "src/sys/descriptor.rs" && !path.starts_with("src/testing/");
    if !elsewhere || is_test(path) {
        return Vec::new();
    }
    let kept = lines_without_tests(text);
    let code = code_only(text);
    let mut wrong = Vec::new();
    for (index, line) in code.lines().take(kept).enumerate() {
        let by_itself =
            ["File::open(", "File::create(", "fs::read(", "fs::write(", "fs::copy(", "read_to_string(", "libc::open("];
        let options = ["OpenOptions::new(", "File::options("];
        let names = |names: &[&str]| names.iter().any(|name| line.contains(name));
        if names(&by_itself) || names(&options) && !line.contains("descriptor::open(") {
            wrong.push(at(path, index + 1, "files are opened by `sys::descriptor`, or by `mapping::file`"));
        }
    }
    wrong
}

/// Every file says what it holds.
pub(crate) fn header(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//!") {
        return Vec::new();
    }
    vec![at(path, 1, "does not begin with a `//!` header")]
}

pub(crate) fn ascii(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
    lines.map(|(index, line)| at(path, index + 1, format!("not ASCII: {line}"))).collect()
}

pub(crate) fn file_length(path: &str, text: &str) -> Vec<String> {
    let lines = lines_without_tests(text);
    if is_test(path) || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![at(path, lines, format!("{lines} lines without tests, at most {FILE_LINES_MAX}"))]
}

pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

pub(crate) fn function_length(path: &str, text: &str) -> Vec<String> {
    functions(&code_only(text))
        .into_iter()
        .filter(|&(_, _, lines)| lines > FUNCTION_LINES_MAX)
        .map(|(name, line, lines)| at(path, line, format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}")))
        .collect()
}

/// `matches!(..);` as a statement asserts nothing.
pub(crate) fn bare_matches(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let bare = |start: usize| {
        let before = code[..start].trim_end().bytes().last();
        let open = code[start..].find('(').map(|length| start + length)?;
        let after = code[matching(&code, open)? + 1..].trim_start();
        Some(matches!(before, None | Some(b';' | b'{' | b'}')) && after.starts_with(';'))
    };
    find_token(&code, "matches")
        .into_iter()
        .filter(|&(_, start)| code[start..].starts_with("matches!") && bare(start) == Some(true))
        .map(|(line, _)| at(path, line, "a bare `matches!` asserts nothing: use `assert!(matches!(..))`"))
        .collect()
}

/// An operation that failed is named whole: a text that ends in a preposition lacks what it is about.
pub(crate) fn operations(path: &str, text: &str) -> Vec<String> {
    const PREPOSITIONS: [&str; 12] =
        ["of", "for", "at", "from", "to", "in", "on", "with", "by", "into", "off", "under"];
    let mut wrong = Vec::new();
    for call in ["io(\"", "failed(\"", "io_error(\""] {
        for (start, _) in text.match_indices(call) {
            let operation = text[start + call.len()..].split('"').next().unwrap_or_default();
            let last = operation.rsplit(' ').next().unwrap_or_default();
            if PREPOSITIONS.contains(&last) {
                wrong.push(at(path, line_of(text, start), format!("\"{operation}\" ends in a preposition")));
            }
        }
    }
    wrong
}

/// Macros that stand for work not done.
pub(crate) fn unfinished(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut wrong = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        let places = find_token(&code, name).into_iter();
        let calls = places.filter(|&(_, start)| code[start + name.len()..].starts_with('!'));
        wrong.extend(calls.map(|(line, _)| at(path, line, format!("`{name}!` is not to stay"))));
    }
    wrong
}

/// A picture in a comment stands in a fence that says `text`: rustdoc compiles what is only indented.
pub(crate) fn pictures(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut after_blank, mut fenced) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(said) = line.strip_prefix("//!").or_else(|| line.strip_prefix("///")) else {
            (after_blank, fenced) = (true, false);
            continue;
        };
        fenced ^= said.trim_start().starts_with("```");
        if after_blank && !fenced && said.starts_with("     ") && !said.trim().is_empty() {
            wrong.push(at(path, index + 1, "an indented block is compiled as a test: put it between ```text and ```"));
        }
        after_blank = said.trim().is_empty();
    }
    wrong
}

/// The paths that a text names, with their lines: words with a slash or a source file's extension that lead into this
/// repository. Web addresses, absolute paths, variables and patterns are none.
pub(crate) fn paths_named(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let breaks = |c: char| !(c.is_ascii_alphanumeric() || "._-/$*:{}~".contains(c));
        for word in line.split(breaks).map(|word| word.trim_end_matches(['.', ':', '-'])) {
            let file = [".rs", ".md", ".toml", ".tsv", ".lock"].iter().any(|extension| word.ends_with(extension));
            let local = !word.starts_with(['/', '.', '~', '-']) || word.starts_with(".ci/");
            if (word.contains('/') || file) && word != "I/O" && local && !word.contains(['$', '*', ':', '{', '~']) {
                all.push((index + 1, word.to_string()));
            }
        }
    }
    all
}

/// Named paths exist.
pub(crate) fn paths_exist(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let missing = paths_named(text).into_iter().filter(|(_, named)| !exists(named));
    missing.map(|(line, named)| at(path, line, format!("names `{named}`, which does not exist"))).collect()
}

/// The integer constants of a Rust file, with sums and products of earlier ones worked out; those of a module inside it
/// as `module::NAME`.
pub(crate) fn constants(text: &str) -> BTreeMap<String, u64> {
    let mut outer = code_only(text);
    let mut known = BTreeMap::new();
    while let Some((module, body)) = cut_module(&mut outer) {
        known.extend(constants(&body).into_iter().map(|(name, value)| (format!("{module}::{name}"), value)));
    }
    for statement in outer.split(';') {
        let Some((_, declaration)) = statement.rsplit_once("const ") else { continue };
        let Some((name_and_type, value)) = declaration.split_once('=') else { continue };
        let name = name_and_type.split(':').next().unwrap_or_default().trim();
        let is_name = name.bytes().all(|byte| is_word(byte) && !byte.is_ascii_lowercase());
        if let (Some(value), true) = (evaluate(value, &known), is_name) {
            known.insert(name.to_string(), value);
        }
    }
    known
}

/// Takes the first module with a body out of `code`: its name and what is in it.
fn cut_module(code: &mut String) -> Option<(String, String)> {
    let start = find_token(code, "mod").into_iter().map(|(_, start)| start).find(|&start| {
        let end = code[start..].find(['{', ';']).map(|length| start + length);
        end.is_some_and(|end| code.as_bytes()[end] == b'{')
    })?;
    let open = start + code[start..].find('{')?;
    let end = matching(code, open)?;
    let found = (code[start + "mod".len()..open].trim().to_string(), code[open + 1..end].to_string());
    code.replace_range(start..=end, "");
    Some(found)
}

fn evaluate(expression: &str, known: &BTreeMap<String, u64>) -> Option<u64> {
    let factor = |text: &str| {
        let text = text.trim().replace('_', "");
        let hexadecimal = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        hexadecimal.or_else(|| text.parse().ok())
    };
    let operand = |text: &str| factor(text).or_else(|| known.get(text.trim()).copied());
    let product = |text: &str| text.split('*').map(operand).product::<Option<u64>>();
    expression.split('+').map(product).sum()
}

/// Rows of the tables in the format's description that name a constant: `| offset | .. | `NAME` |`.
pub(crate) fn documented(text: &str) -> Vec<(usize, u64, String)> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
        let name = last.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        if let (Ok(offset), Some(name), true) = (first.parse(), name, line.trim().starts_with('|')) {
            rows.push((index + 1, offset, name.to_string()));
        }
    }
    rows
}

/// The described offsets are those of the source, and none of the source's is left out.
pub(crate) fn format_agrees(path: &str, text: &str, source: &BTreeMap<String, u64>) -> Vec<String> {
    let rows = documented(text);
    let mut wrong = Vec::new();
    for (line, offset, name) in &rows {
        match source.get(name) {
            Some(value) if value == offset => {}
            Some(value) => wrong.push(at(path, *line, format!("`{name}` is {offset} here and {value} in the source"))),
            None => wrong.push(at(path, *line, format!("`{name}` is not in the source"))),
        }
    }
    let left_out = source.keys().filter(|name| !rows.iter().any(|(_, _, row)| row == *name));
    wrong.extend(left_out.map(|name| at(path, line_of(text, text.len()), format!("`{name}` is not described"))));
    wrong
}
