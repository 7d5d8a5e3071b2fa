//! Figures as JSON: everything that a table or a plot needs, and every value of every round.

use crate::report::{median, Better, Figure, Goal, Row};
use crate::Res;
use serde_json::{json, Value};
use std::path::Path;

/// A run as it is kept.
pub(crate) struct Kept {
    pub(crate) conditions: Vec<(String, String)>,
    pub(crate) figures: Vec<Figure>,
}

pub(crate) fn write(path: &Path, conditions: &[(String, String)], figures: &[Figure]) -> Res<()> {
    let conditions: Vec<Value> = conditions.iter().map(|(name, value)| json!([name, value])).collect();
    let figures: Vec<Value> = figures.iter().map(figure_value).collect();
    let text = serde_json::to_string_pretty(&json!({ "conditions": conditions, "figures": figures }))? + "\n";
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()).into())
}

pub(crate) fn read(path: &Path) -> Res<Kept> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", path.display()).into())
}

fn parse(text: &str) -> Res<Kept> {
    let value: Value = serde_json::from_str(text)?;
    let pair = |pair: &Value| Ok((string(&pair[0])?, string(&pair[1])?));
    Ok(Kept {
        conditions: list(&value["conditions"])?.iter().map(pair).collect::<Res<_>>()?,
        figures: list(&value["figures"])?.iter().map(figure).collect::<Res<_>>()?,
    })
}

fn figure_value(figure: &Figure) -> Value {
    let goal = figure.goal.map(|goal| match goal {
        Goal::RatioAtLeast(bar) => json!(["ratio at least", bar]),
        Goal::RatioAtMost(bar) => json!(["ratio at most", bar]),
        Goal::ValueAtMost(bar) => json!(["value at most", bar]),
    });
    json!({
        "id": figure.id,
        "title": figure.title,
        "keys": figure.keys,
        "entries": figure.entries,
        "unit": figure.unit,
        "better": if figure.better == Better::Higher { "higher" } else { "lower" },
        "ratio_to": figure.versus,
        "goal": goal,
        "engines": figure.rows.iter().map(row_value).collect::<Vec<_>>(),
    })
}

fn row_value(row: &Row) -> Value {
    json!({
        "engine": row.engine,
        "median": median(&row.values),
        "ratio": median(&row.ratios),
        "values": row.values,
        "ratios": row.ratios,
        "note": row.note,
    })
}

fn figure(value: &Value) -> Res<Figure> {
    let better = match value["better"].as_str() {
        Some("higher") => Better::Higher,
        Some("lower") => Better::Lower,
        _ => return Err(format!("better: higher or lower, not {}", value["better"]).into()),
    };
    Ok(Figure {
        id: string(&value["id"])?,
        title: string(&value["title"])?,
        keys: string(&value["keys"])?,
        entries: value["entries"].as_u64().ok_or("entries: not a number")?,
        unit: string(&value["unit"])?,
        better,
        versus: string(&value["ratio_to"])?,
        goal: goal(&value["goal"])?,
        rows: list(&value["engines"])?.iter().map(row).collect::<Res<_>>()?,
    })
}

fn goal(value: &Value) -> Res<Option<Goal>> {
    let Some(bar) = value[1].as_f64() else { return Ok(None) };
    Ok(Some(match value[0].as_str() {
        Some("ratio at least") => Goal::RatioAtLeast(bar),
        Some("ratio at most") => Goal::RatioAtMost(bar),
        Some("value at most") => Goal::ValueAtMost(bar),
        _ => return Err(format!("no goal of that kind: {value}").into()),
    }))
}

fn row(value: &Value) -> Res<Row> {
    Ok(Row {
        engine: string(&value["engine"])?,
        values: numbers(&value["values"])?,
        ratios: numbers(&value["ratios"])?,
        note: string(&value["note"])?,
    })
}

fn list(value: &Value) -> Res<&Vec<Value>> {
    Ok(value.as_array().ok_or_else(|| format!("not a list: {value}"))?)
}

fn string(value: &Value) -> Res<String> {
    Ok(value.as_str().ok_or_else(|| format!("not a text: {value}"))?.into())
}

fn numbers(value: &Value) -> Res<Vec<f64>> {
    let number = |value: &Value| value.as_f64().ok_or_else(|| format!("not a number: {value}").into());
    list(value)?.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_json_reads_back() -> Res<()> {
        let row = |engine: &str, values: &[f64]| Row {
            engine: engine.into(),
            values: values.into(),
            ratios: values.into(),
            note: "\"quoted\"\n".into(),
        };
        let figure_ = |goal| Figure {
            id: "test".into(),
            title: "a title".into(),
            keys: "R".into(),
            entries: 5,
            unit: "s".into(),
            better: Better::Lower,
            versus: "lmdb".into(),
            goal,
            rows: vec![row("lmdb", &[1.0, 2.5]), row("mapleaf", &[])],
        };
        for goal in [None, Some(Goal::RatioAtLeast(2.0)), Some(Goal::RatioAtMost(0.5)), Some(Goal::ValueAtMost(64.0))] {
            let figure_ = figure_(goal);
            assert_eq!(figure(&serde_json::from_str(&figure_value(&figure_).to_string())?)?, figure_);
        }
        assert!(parse("{}").is_err());
        Ok(())
    }
}
