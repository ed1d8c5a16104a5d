//! Lines with history and completion, on a terminal that can do it.

use std::borrow::Cow;

use reedline::{
    ColumnarMenu, EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt, PromptEditMode,
    PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, default_emacs_keybindings,
};

use super::banner::Watch;
use super::completer::TreeCompleter;
use super::{Input, PROMPT, Reader, tree};
use crate::error::CliError;

const MENU: &str = "completion";
const HISTORY: usize = 1000;

/// Reads lines by the line editor.
pub(crate) struct Editor {
    inner: Reedline,
    typed_ahead: Vec<String>,
}

impl Editor {
    pub(crate) fn new(typed_ahead: String, watch: &Watch) -> Self {
        let mut keys = default_emacs_keybindings();
        let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
        let menu = ColumnarMenu::default().with_name(MENU);
        let mut inner = Reedline::create()
            .with_completer(Box::new(TreeCompleter::new(tree())))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_break_signal(watch.news());
        // Kept in memory: nothing of a session outlives it.
        if let Ok(history) = FileBackedHistory::new(HISTORY) {
            inner = inner.with_history(Box::new(history));
        }
        let typed_ahead = typed_ahead.split_inclusive('\n').rev().map(str::to_owned).collect();
        Editor { inner, typed_ahead }
    }
}

impl Reader for Editor {
    fn read(&mut self, watch: &Watch) -> Result<Input, CliError> {
        if let Some(typed) = self.typed_ahead.pop() {
            if let Some(line) = typed.strip_suffix('\n') {
                println!("{PROMPT}{line}");
                return Ok(Input::Line(line.to_owned()));
            }
            self.inner.run_edit_commands(&[EditCommand::InsertString(typed)]);
        }
        let signal = self
            .inner
            .read_line(&Caret)
            .map_err(|e| CliError::io("editing a line", std::io::Error::other(e)))?;
        Ok(match signal {
            Signal::Success(line) => Input::Line(line),
            Signal::CtrlD => Input::End,
            Signal::ExternalBreak(buffer) => {
                watch.take_news();
                self.inner
                    .run_edit_commands(&[EditCommand::Clear, EditCommand::InsertString(buffer)]);
                println!();
                Input::News
            }
            _ => Input::Nothing,
        })
    }
}

/// The prompt.
struct Caret;

impl Prompt for Caret {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(PROMPT)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}
