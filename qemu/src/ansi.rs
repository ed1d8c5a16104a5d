//! Takes the escape sequences out of what a serial console prints, so that text can be matched.
//!
//! Invariant: what comes in pieces gives the same text as what comes at once. The cursor position that a line editor asks
//! for (`ESC [ 6 n`) is recognised, because it waits for the answer before it prints its prompt.
//!
//! Not here: a screen. Text that is overwritten stays in the stream.

/// What one sequence may carry at most; a longer one is noise.
const LONGEST: usize = 256;

/// The state of the stream between two pieces.
#[derive(Debug, Default)]
pub(crate) struct Stripper {
    state: State,
    sequence: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    /// `ESC [`, up to a final byte.
    Control,
    /// `ESC ]`, `P`, `X`, `^` or `_`, up to BEL or `ESC \`.
    String,
    StringEscape,
    /// `ESC (` and the like: one more byte.
    Charset,
}

/// What a piece of the stream held beside text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How often the cursor position was asked for.
    pub(crate) cursor_queries: usize,
}

impl Stripper {
    /// Appends the text of `piece` to `text`: no escape sequences, no carriage returns, no other control characters but
    /// newline and tab.
    pub(crate) fn feed(&mut self, piece: &[u8], text: &mut Vec<u8>) -> Seen {
        let mut seen = Seen::default();
        for &byte in piece {
            self.state = match (self.state, byte) {
                (State::Text, 0x1b) => State::Escape,
                (State::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..) => {
                    text.push(byte);
                    State::Text
                }
                (State::Text, _) => State::Text,
                (State::Escape, b'[') => {
                    self.sequence.clear();
                    State::Control
                }
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => {
                    self.sequence.clear();
                    State::String
                }
                (State::Escape, b'(' | b')' | b'*' | b'+' | b'#' | b'%') => State::Charset,
                (State::Escape, 0x1b) => State::Escape,
                (State::Escape | State::Charset, _) => State::Text,
                (State::Control, 0x40..=0x7e) => {
                    if byte == b'n' && self.sequence == b"6" {
                        seen.cursor_queries += 1;
                    }
                    State::Text
                }
                (State::Control, 0x1b) => State::Escape,
                (State::Control, _) => self.keep(byte, State::Control),
                (State::String, 0x07) => State::Text,
                (State::String, 0x1b) => State::StringEscape,
                (State::String, _) => self.keep(byte, State::String),
                (State::StringEscape, b'\\') => State::Text,
                (State::StringEscape, _) => State::String,
            };
        }
        seen
    }

    fn keep(&mut self, byte: u8, state: State) -> State {
        if self.sequence.len() == LONGEST {
            return State::Text;
        }
        self.sequence.push(byte);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &[(&[u8], &str, usize)] = &[
        (b"plain\r\ntext\n", "plain\ntext\n", 0),
        (b"\x1b[1;31mred\x1b[0m and \x1b[Kcleared", "red and cleared", 0),
        (b"\x1b]0;title\x07after \x1b]8;;x\x1b\\link", "after link", 0),
        (b"\x1b[6nprompt> ", "prompt> ", 1),
        (b"\x1b(B\x1b7x\x1b8\x07", "x", 0),
        (b"[  \x1b[32mOK\x1b[0m  ] \xe2\x97\x8f", "[  OK  ] \u{25cf}", 0),
    ];

    #[test]
    fn escape_sequences_leave_the_text_alone_however_the_stream_is_cut() {
        for (input, expected, queries) in CASES {
            for cut in 1..=input.len() {
                let (mut stripper, mut text, mut asked) = (Stripper::default(), Vec::new(), 0);
                for piece in input.chunks(cut) {
                    asked += stripper.feed(piece, &mut text).cursor_queries;
                }
                assert_eq!(
                    String::from_utf8_lossy(&text),
                    *expected,
                    "{input:?} in pieces of {cut}"
                );
                assert_eq!(asked, *queries, "{input:?} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_sequence_without_end_does_not_swallow_the_rest() {
        let mut text = Vec::new();
        let mut noise = b"\x1b[".to_vec();
        noise.extend([b'1'; LONGEST + 10]);
        noise.extend(b"text");
        Stripper::default().feed(&noise, &mut text);
        assert!(text.ends_with(b"text"));
    }
}
