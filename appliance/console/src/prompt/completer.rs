//! What a line can go on with. Invariant: it is read off the command tree, so it is never out of date; it asks nobody.

use clap::Command;
use reedline::{Completer, CompletionResult, Span, Suggestion};

/// Completes lines from the command tree.
pub(crate) struct TreeCompleter {
    tree: Command,
}

impl TreeCompleter {
    pub(crate) fn new(tree: Command) -> Self {
        TreeCompleter { tree }
    }

    /// The words that can stand where the cursor is, each with its explanation, and where the word begins.
    pub(crate) fn candidates(&self, line: &str) -> (usize, Vec<(String, String)>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |i| i + 1);
        let partial = &line[start..];
        let mut here = &self.tree;
        let mut previous = None;
        for word in line[..start].split_whitespace() {
            if let Some(next) = here.find_subcommand(word) {
                here = next;
            }
            previous = Some(word);
        }
        let value_of = previous.and_then(|word| {
            let takes = |a: &&clap::Arg| a.get_action().takes_values();
            let named = |a: &&clap::Arg| {
                a.get_long().is_some_and(|l| word.strip_prefix("--") == Some(l))
                    || a.get_short()
                        .is_some_and(|s| word.strip_prefix('-').is_some_and(|w| w.chars().eq([s])))
            };
            here.get_arguments().filter(takes).find(named)
        });
        let mut found: Vec<(String, String)> = Vec::new();
        if let Some(argument) = value_of {
            let values = argument.get_possible_values();
            found.extend(values.iter().map(|v| (v.get_name().to_owned(), String::new())));
        } else if partial.starts_with('-') {
            for argument in here.get_arguments().filter(|a| !a.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                found.extend(argument.get_long().map(|long| (format!("--{long}"), help)));
            }
        } else {
            for command in here.get_subcommands().filter(|c| !c.is_hide_set()) {
                let help = command.get_about().map(ToString::to_string).unwrap_or_default();
                found.push((command.get_name().to_owned(), help));
            }
            for argument in here.get_positionals() {
                found.extend(
                    argument
                        .get_possible_values()
                        .iter()
                        .map(|v| (v.get_name().to_owned(), String::new())),
                );
            }
        }
        found.retain(|(word, _)| word.starts_with(partial));
        (start, found)
    }
}

impl Completer for TreeCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let (start, found) = self.candidates(line.get(..pos).unwrap_or(line));
        let suggestions: Vec<Suggestion> = found
            .into_iter()
            .map(|(value, help)| Suggestion {
                value,
                description: (!help.is_empty()).then_some(help),
                span: Span {
                    start,
                    end: pos.max(start),
                },
                append_whitespace: true,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_model::Layout;

    #[test]
    fn lines_go_on_with_what_the_tree_has() {
        let completer = TreeCompleter::new(super::super::tree());
        for (line, expected) in [
            ("vol", vec!["volumes"]),
            ("volumes sh", vec!["show"]),
            ("volumes create x --po", vec!["--pool"]),
            ("pools create x --layout ", Layout::ALL.map(Layout::name).to_vec()),
            ("pools create x --layout m", vec!["mirror"]),
            ("disks list -o ", vec!["table", "json", "pv"]),
            ("she", vec!["shell"]),
            ("nonsense", vec![]),
        ] {
            let words: Vec<String> = completer.candidates(line).1.into_iter().map(|(word, _)| word).collect();
            assert_eq!(words, expected, "{line:?}");
        }
    }
}
