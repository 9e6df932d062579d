//! What a run found: numbers with their bounds, tables and series, as text and as JSON.
//!
//! Nothing in it depends on how long the machine took or what it is: the same command gives the same bytes.

use core::fmt::Write;

use serde_json::{Value, json};

/// What a number must not exceed, or fall below.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a number keeps it. What was not measured does not.
    pub fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtMost(limit) => measured <= limit,
            Self::AtLeast(limit) => measured >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", number(limit)),
            Self::AtLeast(limit) => format!(">= {}", number(limit)),
        }
    }
}

/// One number.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// How much it was; none if it never happened.
    pub measured: Option<f64>,
    /// Of what.
    pub unit: &'static str,
    /// What it has to be; none where it is only told.
    pub bound: Option<Bound>,
}

impl Row {
    /// Whether it is as it has to be.
    pub fn is_met(&self) -> Option<bool> {
        self.bound.map(|bound| self.measured.is_some_and(|m| bound.is_met(m)))
    }
}

/// Lines of cells.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// The cells.
    pub lines: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(|&h| h.to_owned()).collect(), lines: Vec::new() }
    }
}

/// A curve for a plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// What it shows; the plot's title.
    pub name: String,
    /// What is across.
    pub x: &'static str,
    /// What is up.
    pub y: &'static str,
    /// Curves with their names.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// What one scenario found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// The scenario.
    pub name: String,
    /// What happens in it.
    pub what: String,
    /// Its numbers.
    pub rows: Vec<Row>,
    /// Its tables.
    pub tables: Vec<Table>,
    /// Its curves.
    pub series: Vec<Series>,
    /// What has to be known to read them.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Of a scenario, empty.
    pub fn new(name: &str, what: &str) -> Self {
        Self { name: name.to_owned(), what: what.to_owned(), ..Self::default() }
    }

    /// Adds a number with a bound.
    pub fn bound(&mut self, what: impl Into<String>, measured: Option<f64>, unit: &'static str, bound: Bound) {
        self.rows.push(Row { what: what.into(), measured, unit, bound: Some(bound) });
    }

    /// Adds a number without one.
    pub fn tell(&mut self, what: impl Into<String>, measured: impl Into<Option<f64>>, unit: &'static str) {
        self.rows.push(Row { what: what.into(), measured: measured.into(), unit, bound: None });
    }

    /// Adds something to be known.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The number with this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what).unwrap_or_else(|| panic!("no row {what}")).measured
    }

    fn text(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.name, self.what);
        let mut rows = Table::new("", &["", "measured", "", "bound", "verdict"]);
        for row in &self.rows {
            let verdict = match row.is_met() {
                Some(true) => "met",
                Some(false) => "NOT MET",
                None => "",
            };
            let measured = row.measured.map_or("never".to_owned(), number);
            let bound = row.bound.map_or(String::new(), Bound::text);
            rows.lines.push(vec![row.what.clone(), measured, row.unit.to_owned(), bound, verdict.to_owned()]);
        }
        out += &grid(&rows);
        for table in &self.tables {
            let _ = write!(out, "\n{}\n\n{}", table.title, grid(table));
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        out
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (kind, limit) = match row.bound {
                Some(Bound::AtMost(limit)) => ("at most", Some(limit)),
                Some(Bound::AtLeast(limit)) => ("at least", Some(limit)),
                None => ("", None),
            };
            json!({
                "what": row.what, "measured": row.measured, "unit": row.unit, "bound": kind, "limit": limit,
                "met": row.is_met(),
            })
        });
        let tables =
            self.tables.iter().map(|table| json!({ "title": table.title, "head": table.head, "lines": table.lines }));
        let series = self.series.iter().map(|series| {
            let curves = series.curves.iter().map(|(name, points)| json!({ "name": name, "points": points }));
            json!({ "name": series.name, "x": series.x, "y": series.y, "curves": curves.collect::<Vec<_>>() })
        });
        json!({
            "name": self.name, "what": self.what, "notes": self.notes, "rows": rows.collect::<Vec<_>>(),
            "tables": tables.collect::<Vec<_>>(), "series": series.collect::<Vec<_>>(),
        })
    }
}

/// What a run found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// The command that makes it again.
    pub command: String,
    /// What was assumed of the world.
    pub model: Vec<String>,
    /// By scenario.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("# {}\n\n", self.command);
        for line in &self.model {
            let _ = writeln!(out, "- {line}");
        }
        for outcome in &self.outcomes {
            let _ = write!(out, "\n{}", outcome.text());
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let outcomes: Vec<Value> = self.outcomes.iter().map(Outcome::json).collect();
        let all = json!({ "command": self.command, "model": self.model, "scenarios": outcomes });
        serde_json::to_string_pretty(&all).expect("numbers and texts") + "\n"
    }

    /// What was found of a scenario.
    ///
    /// # Panics
    /// If it was not run.
    pub fn of(&self, name: &str) -> &Outcome {
        self.outcomes.iter().find(|o| o.name == name).unwrap_or_else(|| panic!("{name} was not run"))
    }
}

/// A Markdown table.
fn grid(table: &Table) -> String {
    let mut out = format!("| {} |\n|{}\n", table.head.join(" | "), " --- |".repeat(table.head.len()));
    for line in &table.lines {
        let _ = writeln!(out, "| {} |", line.join(" | "));
    }
    out
}

/// A number with three digits that count, or all before the point.
pub fn number(n: f64) -> String {
    let decimals = match n.abs() {
        size if size >= 100.0 || (n.fract() == 0.0 && size < 1e15) => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    format!("{n:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_or_not_and_what_never_happened_meets_none() {
        let mut outcome = Outcome::new("x", "y");
        outcome.bound("a", Some(1.0), "s", Bound::AtMost(1.0));
        outcome.bound("b", Some(1.1), "s", Bound::AtMost(1.0));
        outcome.bound("c", None, "s", Bound::AtMost(1.0));
        outcome.bound("d", Some(0.9), "s", Bound::AtLeast(1.0));
        outcome.tell("e", 7.0, "s");
        let met: Vec<_> = outcome.rows.iter().map(Row::is_met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(false), Some(false), None]);
        let text = outcome.text();
        assert_eq!(text.matches("NOT MET").count(), 3, "{text}");
        assert!(text.contains("| c | never | s | <= 1 | NOT MET |"), "{text}");
    }

    #[test]
    fn numbers_are_as_long_as_they_have_to_be() {
        let texts = [0.0, 0.123_456, 1.5, 12.34, 123.4, 99.9, 1e8].map(number);
        assert_eq!(texts, ["0", "0.1235", "1.50", "12.3", "123", "99.9", "100000000"]);
    }
}
