//! Figures as SVG: a file per group and number of entries, in it a chart of bars per figure and kind of keys.
//!
//! A bar is the median; behind it stand the median and the ratio. A chart whose values differ more than thirtyfold has a
//! logarithmic scale and says so, with a line per power of ten. Where the goal is a ratio to LMDB, or a value, a dashed
//! line shows where Mapleaf wants to be.

use crate::engine::BASELINE;
use crate::groups;
use crate::report::{median, short, Better, Figure, Goal, Row, OWN};
use crate::Res;
use std::fmt::Write as _;
use std::path::Path;

const CHART_WIDTH: f64 = 560.0;
/// Room for the engines' names, and for what is written behind the bars.
const NAMES: f64 = 118.0;
const BEHIND: f64 = 130.0;
const HEAD: f64 = 48.0;
const BAR: f64 = 20.0;
const GAP: f64 = 18.0;
const TITLE: f64 = 54.0;
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

/// Charts side by side for the kinds of keys of one figure, one figure below the other; where there is one kind of keys
/// alone, two figures side by side.
fn page(title: &str, below: &str, figures: &[&Figure]) -> String {
    let kinds = figures.chunk_by(|a, b| a.id == b.id).map(<[_]>::len).max().unwrap_or(1);
    let lines: Vec<&[&Figure]> =
        if kinds == 1 { figures.chunks(2).collect() } else { figures.chunk_by(|a, b| a.id == b.id).collect() };
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(1);
    let mut charts = String::new();
    let mut y = TITLE;
    for line in lines {
        let height = line.iter().map(|figure| height(figure)).fold(0.0, f64::max);
        for (column, figure) in line.iter().enumerate() {
            charts += &chart(figure, GAP + column as f64 * (CHART_WIDTH + GAP), y);
        }
        y += height + GAP;
    }
    let (width, height) = (GAP + columns as f64 * (CHART_WIDTH + GAP), y + 6.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         {}{}{charts}</svg>\n",
        line_of_text(GAP, 24.0, "font-size=\"17\" font-weight=\"bold\"", title),
        line_of_text(GAP, 42.0, "fill=\"#666666\" font-size=\"11\"", below),
    )
}

fn height(figure: &Figure) -> f64 {
    HEAD + BAR * figure.rows.len() as f64
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

/// Where the goal lies on the axis of the values.
fn goal_value(figure: &Figure) -> Option<f64> {
    let base = figure.rows.iter().find(|row| row.engine == BASELINE).map(|row| median(&row.values));
    match figure.goal? {
        Goal::ValueAtMost(bar) => Some(bar),
        Goal::RatioAtLeast(bar) | Goal::RatioAtMost(bar) if figure.versus == BASELINE => Some(bar * base?),
        _ => None,
    }
}

fn chart(figure: &Figure, x: f64, y: f64) -> String {
    let goal = goal_value(figure);
    let values = figure.rows.iter().map(|row| median(&row.values)).filter(|value| value.is_finite());
    let scale = Scale::new(&values.chain(goal).collect::<Vec<f64>>());
    let (left, width) = (x + NAMES, CHART_WIDTH - NAMES - BEHIND);
    let (top, bottom) = (y + HEAD - 6.0, y + height(figure));
    let mut text = line_of_text(x, y + 16.0, "font-weight=\"bold\"", &heading(figure));
    text += &line_of_text(x, y + 32.0, "fill=\"#666666\" font-size=\"11\"", &subtitle(figure, &scale));
    if let Some((first, count)) = scale.powers {
        for power in 0..=count as u32 {
            let at = left + width * scale.place(10f64.powf(first + f64::from(power)));
            text += &vertical(at, top, bottom, "stroke=\"#dddddd\"");
        }
    }
    let mut labels = String::new();
    for (i, row) in figure.rows.iter().enumerate() {
        let (bar, label) = bar(figure, row, &scale, (left, width), y + HEAD + BAR * i as f64);
        text += &bar;
        labels += &label;
    }
    if let Some(goal) = goal {
        let at = left + width * scale.place(goal);
        text += &vertical(at, top, bottom, "stroke=\"#c0392b\" stroke-width=\"1.5\" stroke-dasharray=\"4 3\"");
    }
    // Over the line of the goal, so that it stays readable.
    text + &labels
}

fn heading(figure: &Figure) -> String {
    let (bare, counts) = figure.title.split_once(" (keys").unwrap_or((&figure.title, ""));
    let after = counts.split_once(')').map_or("", |(_, after)| after);
    const LENGTH_MAX: usize = 68;
    let mut words = format!("{bare}{after}");
    if words.len() > LENGTH_MAX {
        words.truncate(LENGTH_MAX - 2);
        words += "..";
    }
    format!("{words}, keys {}", figure.keys)
}

fn subtitle(figure: &Figure, scale: &Scale) -> String {
    let better = if figure.better == Better::Higher { "longer is better" } else { "shorter is better" };
    let mut text = format!("{}, {better}", figure.unit);
    if scale.powers.is_some() {
        text += ", logarithmic";
    }
    if let Some(goal) = figure.goal {
        let verdict = figure.rows.iter().find_map(|row| figure.verdict(row)).unwrap_or("-");
        let _ = write!(text, "; goal: {} ({verdict})", goal.text(&figure.unit));
    }
    text
}

fn vertical(x: f64, top: f64, bottom: f64, style: &str) -> String {
    format!("<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" {style}/>\n")
}

/// The bar, and what is written before and behind it.
fn bar(figure: &Figure, row: &Row, scale: &Scale, (left, width): (f64, f64), y: f64) -> (String, String) {
    let name = line_of_text(left - 6.0, y + 14.0, "text-anchor=\"end\"", &row.engine);
    if row.values.is_empty() {
        return (String::new(), name + &line_of_text(left + 6.0, y + 14.0, "fill=\"#666666\"", "-"));
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
    let mut behind = short(value);
    if ratio.is_finite() && figure.versus != row.engine {
        let _ = write!(behind, "  ({ratio:.2} x)");
    }
    let halo = "xml:space=\"preserve\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\"";
    (bar, name + &line_of_text(left + length + 6.0, y + 14.0, halo, &behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_place_ends_at_ends() {
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
}
