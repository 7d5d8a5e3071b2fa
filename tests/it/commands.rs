//! Commands in Markdown, as words: from fenced blocks of shell lines, and from code in the text.
//!
//! The tests of `kvctl` use this file too.

/// A command, and the line on which it begins.
#[derive(PartialEq, Debug)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) words: Vec<String>,
}

/// All commands of a document: lines in blocks fenced as `sh`, `console` or `text`, and code spans.
pub(crate) fn commands(text: &str) -> Vec<Command> {
    let mut all = Vec::new();
    for (line, code) in code(text) {
        for part in parts(&code) {
            let words: Vec<String> = part.into_iter().skip_while(|word| is_assignment(word)).collect();
            if !words.is_empty() {
                all.push(Command { line, words });
            }
        }
    }
    all
}

/// The pieces of code of a document, with their lines. A shell line that ends with `\` continues.
pub(crate) fn code(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<String> = None;
    let mut continues = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_string()) };
            continues = false;
        } else if let Some(language) = &fence {
            if ["sh", "console", "text"].contains(&language.as_str()) {
                let shown = line.trim().strip_prefix("$ ").unwrap_or(line.trim());
                let more = shown.strip_suffix('\\');
                match all.last_mut() {
                    Some((_, command)) if continues => {
                        command.push(' ');
                        command.push_str(more.unwrap_or(shown));
                    }
                    _ => all.push((index + 1, more.unwrap_or(shown).to_string())),
                }
                continues = more.is_some();
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            all.extend(spans.map(|span| (index + 1, span.to_string())));
        }
    }
    all
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The commands of a shell line: words without quotes, cut at `|`, `&&` and `;`. A comment ends the
/// line.
fn parts(line: &str) -> Vec<Vec<String>> {
    let mut parts = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => word.push(c),
            None if c == '#' && word.is_empty() => break,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() || "|;&".contains(c) => {
                if !word.is_empty() {
                    parts.last_mut().expect("never empty").push(std::mem::take(&mut word));
                }
                if !c.is_whitespace() {
                    parts.push(Vec::new());
                }
            }
            None => word.push(c),
        }
    }
    if !word.is_empty() {
        parts.last_mut().expect("never empty").push(word);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn commands_are_found_in_blocks_and_in_the_text() {
    let text =
        "Run `kvctl get FILE` or:\n```sh\nA=1 cargo run \\\n    -- x   # why\nkvctl dump a 'b c' | kvctl load d\n```\n\
                ```rust\nkvctl(not);\n```\n";
    let found: Vec<(usize, String)> =
        commands(text).into_iter().map(|command| (command.line, command.words.join("+"))).collect();
    let expected = [(1, "kvctl+get+FILE"), (3, "cargo+run+--+x"), (5, "kvctl+dump+a+b c"), (5, "kvctl+load+d")];
    assert_eq!(found, expected.map(|(line, words)| (line, words.to_string())));
}
