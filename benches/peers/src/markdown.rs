//! Figures as Markdown: the conditions of the run, then a table per group, a row per figure and kind of keys.
//!
//! A cell is the median of the ratios with the lowest and the highest; the column of LMDB has its median itself.

use crate::engine::BASELINE;
use crate::groups;
use crate::report::{median, short, spread, Figure, OWN};
use std::fmt::Write as _;

pub(crate) fn text(conditions: &[(String, String)], figures: &[Figure]) -> String {
    let mut text = String::new();
    for (name, value) in conditions {
        let _ = writeln!(text, "- {name}: {}", if name == "command" { format!("`{value}`") } else { value.clone() });
    }
    for (group, entries, figures) in groups::grouped(figures) {
        let _ = writeln!(
            text,
            "\n## {}, {entries} entries\n\n![{}]({}-{entries}.svg)\n",
            group.title, group.title, group.file
        );
        text += &table(&figures);
    }
    text
}

fn table(figures: &[&Figure]) -> String {
    let engines = engines(figures);
    let others = engines.iter().filter(|name| **name != BASELINE && **name != OWN);
    let order: Vec<&str> =
        [BASELINE, OWN].into_iter().filter(|name| engines.contains(name)).chain(others.copied()).collect();
    let mut text = format!("| figure | keys | ratio to | {} |\n", order.join(" | "));
    text += &format!("|---|---|---|{}\n", "---|".repeat(order.len()));
    for figure in figures {
        let bare = figure.title.split(" (keys").next().unwrap_or_default();
        let cells: Vec<String> = order.iter().map(|engine| cell(figure, engine)).collect();
        let _ = writeln!(text, "| {bare} | {} | {} | {} |", figure.keys, figure.versus, cells.join(" | "));
    }
    text
}

fn engines<'f>(figures: &[&'f Figure]) -> Vec<&'f str> {
    let mut found: Vec<&str> = Vec::new();
    for row in figures.iter().flat_map(|figure| &figure.rows) {
        if !found.contains(&row.engine.as_str()) {
            found.push(&row.engine);
        }
    }
    found
}

fn cell(figure: &Figure, engine: &str) -> String {
    let Some(row) = figure.rows.iter().find(|row| row.engine == engine) else { return "-".into() };
    if row.values.is_empty() {
        return "-".into();
    }
    let value = format!("{} {}", short(median(&row.values)), figure.unit);
    if figure.versus == engine || row.ratios.is_empty() {
        return value;
    }
    let ratio = format!("{:.2} {}", median(&row.ratios), spread(&row.ratios, |ratio| format!("{ratio:.2}")));
    match engine {
        BASELINE | OWN => format!("{}, {value}", ratio.trim_end()),
        _ => ratio.trim_end().into(),
    }
}
