//! Figures, and how they are shown. Pure but for writing the file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// What is aimed for. Where we stand is reported; nothing fails by it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aim {
    /// At most this many times the floor.
    Times(f64),
    /// At most this.
    Value(f64),
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much: the median.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// The same without us.
    pub floor: Option<f64>,
    /// Value over floor; for what is the better the more, it says what is left of the floor.
    pub ratio: Option<f64>,
    /// What is aimed for.
    pub aim: Option<Aim>,
    /// What it is the median of.
    pub values: Vec<f64>,
    /// What the floor is the median of.
    pub floors: Vec<f64>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Sheet {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Sheet {
    /// Adds the median of these values, beside that of these floors, and says it.
    pub fn add(&mut self, name: &str, unit: &'static str, values: Vec<f64>, floors: Vec<f64>, aim: Option<Aim>) {
        let Some(value) = median(&values) else { return };
        let floor = median(&floors);
        let ratio = floor.filter(|floor| *floor > 0.0).map(|floor| value / floor);
        let figure = Figure {
            name: name.to_owned(),
            value,
            unit,
            floor,
            ratio,
            aim,
            values,
            floors,
        };
        println!("  {}", row(&figure));
        self.figures.push(figure);
    }

    /// Adds a remark.
    pub fn note(&mut self, text: String) {
        println!("  note: {text}");
        self.notes.push(text);
    }

    /// How many figures there are.
    pub fn len(&self) -> usize {
        self.figures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }

    /// The table for a person.
    pub fn table(&self) -> String {
        let mut text = header();
        for figure in &self.figures {
            text.push('\n');
            text.push_str(&row(figure));
        }
        for note in &self.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        text
    }

    /// Writes `{"machine": ..., "figures": [...], "notes": [...]}`.
    pub fn write(&self, path: &Path, machine: &serde_json::Value) -> Result<()> {
        let value = serde_json::json!({ "machine": machine, "figures": self.figures, "notes": self.notes });
        std::fs::write(path, serde_json::to_string_pretty(&value)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn header() -> String {
    format!(
        "{:<46} | {:>14} | {:>14} | {:>6} | aim",
        "figure", "value", "floor", "ratio"
    )
}

fn row(figure: &Figure) -> String {
    let amount = |value: f64| format!("{} {}", shown(value), figure.unit);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let aim = figure.aim.map(|aim| match aim {
        Aim::Times(times) => format!("{times} x"),
        Aim::Value(value) => amount(value),
    });
    format!(
        "{:<46} | {:>14} | {:>14} | {:>6} | {}",
        figure.name,
        amount(figure.value),
        or_dash(figure.floor.map(amount)),
        or_dash(figure.ratio.map(|ratio| format!("{ratio:.2}"))),
        or_dash(aim)
    )
}

/// Three digits that count.
fn shown(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The middle of these values; none of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    match sorted.len() % 2 {
        0 => Some((sorted[middle - 1] + upper) / 2.0),
        _ => Some(upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_row_shows_value_floor_ratio_and_aim_or_dashes() {
        let mut sheet = Sheet::default();
        sheet.add("start", "s", vec![12.0], vec![8.0], Some(Aim::Times(1.5)));
        sheet.add("image", "MB", vec![92.3], vec![], Some(Aim::Value(120.0)));
        let table: Vec<Vec<String>> = sheet
            .table()
            .lines()
            .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect();
        assert_eq!(table[1], ["start", "12.0 s", "8.00 s", "1.50", "1.5 x"]);
        assert_eq!(table[2], ["image", "92.3 MB", "-", "-", "120 MB"]);
    }
}
