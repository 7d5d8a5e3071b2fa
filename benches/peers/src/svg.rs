//! Figures as SVG: a file per group and number of entries, with a chart of bars per figure and kind of keys.
//!
//! A bar is the median; the median and the ratio to LMDB are written after it. A chart whose values differ more than
//! thirtyfold has a logarithmic scale and says so, with a line per power of ten. A plot has two columns, so that it can be
//! read at the width of a page; titles that are too long for their column are wrapped.

use crate::engine::BASELINE;
use crate::groups;
use crate::report::{median, short, Better, Figure, Row, OWN};
use crate::Res;
use std::fmt::Write as _;
use std::path::Path;

const COLUMNS: usize = 2;
const CHART_WIDTH: f64 = 440.0;
/// Room for the engines' names, and for the values after the bars.
const NAMES: f64 = 108.0;
const AFTER_BARS: f64 = 124.0;
/// A heading of one line with the line below it; each further line of the heading.
const HEAD: f64 = 48.0;
const HEAD_LINE: f64 = 15.0;
const BAR: f64 = 20.0;
const GAP: f64 = 18.0;
const PAGE_WIDTH: f64 = GAP + COLUMNS as f64 * (CHART_WIDTH + GAP);
/// Width of a character that is wider than most, as a share of the font's size.
const CHARACTER: f64 = 0.6;
/// Values that differ more than this are drawn on a logarithmic scale.
const LINEAR_MAX: f64 = 30.0;

pub(crate) fn write_all(folder: &Path, conditions: &[(String, String)], figures: &[Figure]) -> Res<()> {
    let of = |wanted: &str| conditions.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value);
    let below = format!("commit {}, {}, {}", of("commit"), of("date"), of("machine"));
    for (group, entries, members) in groups::grouped(figures) {
        let path = folder.join(format!("{}-{entries}.svg", group.file));
        let title = format!("{}, {entries} entries", group.title);
        std::fs::write(&path, page(&title, &below, &members)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Charts in two columns: the kinds of keys of one figure, then the next figure. Where each figure has one kind of keys,
/// two figures side by side.
fn page(title: &str, below: &str, figures: &[&Figure]) -> String {
    let is_one_kind = figures.chunk_by(|a, b| a.id == b.id).all(|kinds| kinds.len() == 1);
    let lines: Vec<&[&Figure]> = if is_one_kind {
        figures.chunks(COLUMNS).collect()
    } else {
        figures.chunk_by(|a, b| a.id == b.id).flat_map(|kinds| kinds.chunks(COLUMNS)).collect()
    };
    let mut text = String::new();
    let mut y = 24.0;
    text += &line_of_text(GAP, y, "font-size=\"17\" font-weight=\"bold\"", title);
    for line in wrapped(below, PAGE_WIDTH - 2.0 * GAP, 11.0) {
        y += HEAD_LINE;
        text += &line_of_text(GAP, y, "fill=\"#666666\" font-size=\"11\"", &line);
    }
    y += GAP;
    for line in lines {
        let height = line.iter().map(|figure| height(figure)).fold(0.0, f64::max);
        for (column, figure) in line.iter().enumerate() {
            text += &chart(figure, GAP + column as f64 * (CHART_WIDTH + GAP), y);
        }
        y += height + GAP;
    }
    let (width, height) = (PAGE_WIDTH, y + 6.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{text}</svg>\n"
    )
}

fn head(figure: &Figure) -> f64 {
    HEAD + HEAD_LINE * (heading(figure).len() - 1) as f64
}

fn height(figure: &Figure) -> f64 {
    head(figure) + BAR * figure.rows.len() as f64
}

/// A text in lines that are not wider than this; a longer word has a line of its own.
fn wrapped(text: &str, width: f64, font_size: f64) -> Vec<String> {
    let length_max = (width / (CHARACTER * font_size)) as usize;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= length_max => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

fn line_of_text(x: f64, y: f64, style: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>\n", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where values lie on the axis, from 0 to 1.
struct Scale {
    /// Exponent of the first power of ten, and powers to the end, where the scale is logarithmic.
    powers: Option<(f64, f64)>,
    max: f64,
}

impl Scale {
    fn new(values: &[f64]) -> Scale {
        let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let min = values.iter().copied().filter(|&value| value > 0.0).fold(max, f64::min);
        let first = min.log10().floor();
        let powers = (max / min > LINEAR_MAX).then(|| (first, max.log10() - first));
        Scale { powers, max }
    }

    fn place(&self, value: f64) -> f64 {
        match self.powers {
            Some((first, count)) => ((value.max(f64::MIN_POSITIVE).log10() - first) / count).clamp(0.0, 1.0),
            None => (value / self.max).clamp(0.0, 1.0),
        }
    }
}

fn chart(figure: &Figure, x: f64, y: f64) -> String {
    let values = figure.rows.iter().map(|row| median(&row.values)).filter(|value| value.is_finite());
    let scale = Scale::new(&values.collect::<Vec<f64>>());
    let (left, width) = (x + NAMES, CHART_WIDTH - NAMES - AFTER_BARS);
    let head = head(figure);
    let (top, bottom) = (y + head - 6.0, y + height(figure));
    let mut text = String::new();
    let mut baseline = y + 16.0;
    for line in heading(figure) {
        text += &line_of_text(x, baseline, "font-weight=\"bold\"", &line);
        baseline += HEAD_LINE;
    }
    text += &line_of_text(x, baseline, "fill=\"#666666\" font-size=\"11\"", &subtitle(figure, &scale));
    if let Some((first, count)) = scale.powers {
        for power in 0..=count as u32 {
            let at = left + width * scale.place(10f64.powf(first + f64::from(power)));
            text += &vertical(at, top, bottom, "stroke=\"#dddddd\"");
        }
    }
    for (i, row) in figure.rows.iter().enumerate() {
        text += &bar(figure, row, &scale, (left, width), y + head + BAR * i as f64);
    }
    text
}

/// The title and the keys, in lines that fit above a chart.
fn heading(figure: &Figure) -> Vec<String> {
    let (bare, counts) = figure.title.split_once(" (keys").unwrap_or((&figure.title, ""));
    let after = counts.split_once(')').map_or("", |(_, after)| after);
    // Bold characters are wider.
    wrapped(&format!("{bare}{after}, keys {}", figure.keys), CHART_WIDTH, 13.0)
}

fn subtitle(figure: &Figure, scale: &Scale) -> String {
    let better = if figure.better == Better::Higher { "longer is better" } else { "shorter is better" };
    let logarithmic = if scale.powers.is_some() { ", logarithmic" } else { "" };
    format!("{}, {better}{logarithmic}", figure.unit)
}

fn vertical(x: f64, top: f64, bottom: f64, style: &str) -> String {
    format!("<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" {style}/>\n")
}

/// The name of the engine, its bar, and the median with the ratio after the bar.
fn bar(figure: &Figure, row: &Row, scale: &Scale, (left, width): (f64, f64), y: f64) -> String {
    let name = line_of_text(left - 6.0, y + 14.0, "text-anchor=\"end\"", &row.engine);
    if row.values.is_empty() {
        return name + &line_of_text(left + 6.0, y + 14.0, "fill=\"#666666\"", "-");
    }
    let value = median(&row.values);
    let length = (width * scale.place(value)).max(1.0);
    let colour = match row.engine.as_str() {
        OWN => "#2e8b57",
        BASELINE => "#7f8c8d",
        name if name.starts_with(BASELINE) => "#bdc3c7",
        _ => "#8fb0d3",
    };
    let (top, height) = (y + 2.0, BAR - 4.0);
    let bar = format!(
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n"
    );
    let ratio = median(&row.ratios);
    let mut label = short(value);
    if ratio.is_finite() && figure.versus != row.engine {
        let _ = write!(label, "  ({ratio:.2} x)");
    }
    let halo = "xml:space=\"preserve\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\"";
    name + &bar + &line_of_text(left + length + 6.0, y + 14.0, halo, &label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_place_the_ends_of_their_range_at_0_and_1() {
        let linear = Scale::new(&[2.0, 10.0]);
        assert_eq!((linear.place(10.0), linear.place(5.0)), (1.0, 0.5));
        let logarithmic = Scale::new(&[2.0, 1_000.0]);
        assert_eq!((logarithmic.place(1.0), logarithmic.place(1_000.0)), (0.0, 1.0));
        assert!((logarithmic.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a < b & c"), "a &lt; b &amp; c");
    }

    fn figure(title: &str, keys: &str) -> Figure {
        let row = |engine: &str, value| Row {
            engine: engine.into(),
            values: vec![value],
            ratios: vec![12.345],
            note: String::new(),
        };
        Figure {
            id: "test".into(),
            title: title.into(),
            keys: keys.into(),
            entries: 1_000_000,
            unit: "lookups/s".into(),
            better: Better::Higher,
            versus: BASELINE.into(),
            goal: None,
            rows: vec![row(BASELINE, 664_123.0), row("lmdb-nordahead", 664_123.0), row(OWN, 1_750_000.0)],
        }
    }

    /// The number of an attribute.
    fn number(tag: &str, name: &str) -> f64 {
        let value = tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        value.and_then(|(value, _)| value.parse().ok()).expect(name)
    }

    #[test]
    fn no_text_is_cut_off_or_leaves_the_plot() {
        let long =
            "random point reads of entries whose keys are not in the table, each in a read transaction of its own, \
                    by two threads (keys of 24 bytes) after the load";
        let figures: Vec<Figure> = ["R", "R16", "S1", "S2", "N"].map(|keys| figure(long, keys)).into();
        let below =
            "commit 0123456789ab, 2026-11-27 08:15 UTC, ".to_string() + &"a machine with a long name ".repeat(8);
        let page = page("Reads, warm, 1000000 entries", &below, &figures.iter().collect::<Vec<_>>());
        let width = number(page.lines().next().expect("a tag"), "width");
        assert!(width < 1_000.0, "{width} is wider than a page");
        let mut words = String::new();
        for line in page.lines().filter(|line| line.starts_with("<text")) {
            let (tag, rest) = line.split_once('>').expect("a tag");
            let text = rest.split('<').next().expect("a text");
            let font_size = if tag.contains("font-size") { number(tag, "font-size") } else { 12.0 };
            let (x, room) = (number(tag, "x"), text.len() as f64 * CHARACTER * font_size);
            let (start, end) = if tag.contains("anchor") { (x - room, x) } else { (x, x + room) };
            assert!(start >= 0.0 && end <= width, "from {start} to {end}: {text}");
            words += text;
            words += " ";
        }
        let whole = "in a read transaction of its own, by two threads after the load, keys S2";
        assert!(words.contains(whole) && words.matches("a machine with").count() == 8, "{words}");
    }
}
