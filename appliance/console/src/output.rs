//! How things are printed: as a table that fits the terminal, or as one JSON document. Invariant: the JSON is the API's
//! own; a table never is the only place that says something.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table};
use serde::Serialize;

use crate::cli::{Format, Global};
use crate::error::CliError;

/// What a terminal without a size is taken for.
pub(crate) const WIDTH: u16 = 80;

/// Where and how to print.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    width: Option<u16>,
}

impl Output {
    /// As the arguments and the standard output want it.
    pub(crate) fn new(global: &Global) -> Self {
        let stdout = std::io::stdout();
        let width = stdout
            .is_terminal()
            .then(|| match rustix::termios::tcgetwinsize(&stdout) {
                Ok(size) if size.ws_col > 0 => size.ws_col,
                _ => WIDTH,
            });
        Output {
            format: global.output,
            quiet: global.quiet,
            width,
        }
    }

    /// Whether a PersistentVolume is asked for.
    pub(crate) fn is_pv(&self) -> bool {
        self.format == Format::Pv
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a list.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> String,
        table: impl Fn(&[T]) -> Rows,
        none: &str,
    ) -> Result<(), CliError> {
        if self.is_json() {
            self.json(&items)
        } else if self.quiet {
            let names: Vec<String> = items.iter().map(name).collect();
            self.text(&names.join("\n"))
        } else if items.is_empty() {
            self.note(none);
            Ok(())
        } else {
            self.text(&table(items).render(self.width))
        }
    }

    /// Prints one thing.
    pub(crate) fn one<T: Serialize>(
        &self,
        item: &T,
        name: impl Fn(&T) -> String,
        text: impl Fn(&T) -> String,
    ) -> Result<(), CliError> {
        if self.is_json() {
            self.json(item)
        } else if self.quiet {
            self.text(&name(item))
        } else {
            self.text(&text(item))
        }
    }

    /// Prints a value as JSON: indented for one document, on one line in a stream.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|e| CliError::io("printing", e.into()))?;
        self.text(&text)
    }

    /// Prints lines.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::BrokenPipe => CliError::Closed,
                _ => CliError::io("printing", error),
            })
    }

    /// Says something beside the result, for people only.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json() && !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// A table: its head, and its rows.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    pub(crate) fn new<const N: usize>(head: [&'static str; N], rows: impl Iterator<Item = [String; N]>) -> Self {
        Rows {
            head: head.to_vec(),
            rows: rows.map(Vec::from).collect(),
        }
    }

    /// As text, without borders. Where there is no terminal, each row is one line.
    pub(crate) fn render(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        match width {
            Some(width) => {
                table
                    .set_content_arrangement(ContentArrangement::Dynamic)
                    .set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.set_header(self.head.iter().map(Cell::new));
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = table
            .to_string()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.join("\n")
    }
}

/// Named values, one in each line, aligned.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let lines: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            let indented = value.replace('\n', &format!("\n{:width$}", ""));
            format!("{name:width$}{indented}").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}
