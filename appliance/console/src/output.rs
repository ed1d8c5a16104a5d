//! How things are printed: as a table that fits the terminal, or as one JSON document. Invariant: the JSON is the API's
//! own; a table never is the only place that says something; what others say reaches a person as text and does nothing
//! to the terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use cistern_model::is_hidden;
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
        self.document(&text)
    }

    /// Prints lines for people.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        self.document(&shown(text))
    }

    /// Prints what programs read, as it is: JSON, YAML, a script.
    pub(crate) fn document(&self, text: &str) -> Result<(), CliError> {
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
            eprintln!("{}", shown(text));
        }
    }
}

/// A text as a person is to see it: what would direct the terminal or not be seen stands as its number, `\u{1b}`. Lines stay lines.
/// For all that is printed for people, because names, messages and what disks say of themselves are somebody else's.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let stays = |c: char| c == '\n' || !is_hidden(c);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match stays(c) {
            true => safe.push(c),
            false => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
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
            // Before it is laid out: what is printed in place of a character takes more room.
            table.add_row(row.iter().map(|cell| shown(cell)));
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
            let indented = shown(value).replace('\n', &format!("\n{:width$}", ""));
            format!("{name:width$}{indented}").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a text into the clipboard of the terminal that it is printed on.
    const CLIPBOARD: &str = "\u{1b}]52;c;cm0gLXJm\u{7}";

    #[test]
    fn what_would_direct_the_terminal_is_shown_by_its_number() {
        for (text, expected) in [
            (CLIPBOARD, r"\u{1b}]52;c;cm0gLXJm\u{7}"),
            ("a\u{9b}2J\u{7f}", r"a\u{9b}2J\u{7f}"),
            ("done\rerror", r"done\u{d}error"),
            ("abc\u{202e}fed\u{2028}", r"abc\u{202e}fed\u{2028}"),
            ("two\nlines, ünï 写真", "two\nlines, ünï 写真"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected, "again it is the same");
        }
    }

    #[test]
    fn a_table_and_named_values_show_it_so_and_keep_their_widths() {
        let model = format!("disk{CLIPBOARD}");
        let rows = Rows::new(["DISK", "MODEL"], [["sda".to_owned(), model.clone()]].into_iter());
        for width in [Some(40), Some(80), None] {
            let text = rows.render(width);
            assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
            let fits = |line: &str| width.is_none_or(|width| line.chars().count() <= usize::from(width));
            assert!(text.lines().all(fits), "{text}");
        }
        let text = fields(&[("disk", "sda".to_owned()), ("model", model)]);
        assert_eq!(text, "disk   sda\nmodel  disk\\u{1b}]52;c;cm0gLXJm\\u{7}");
    }
}
