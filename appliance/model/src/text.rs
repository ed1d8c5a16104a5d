//! Text that others chose, where people read it or paste it. Pure. Invariant: what is read is what is there, and a word of a
//! command stays one word.

use std::borrow::Cow;

use crate::Invalid;

/// Whether a character is not seen where it is printed, or changes how others are seen: it directs a terminal, ends a line (of
/// YAML too), turns the direction of writing, or shows nothing. Of Unicode's categories that is all of Cc, Zl and Zp, and of Cf
/// what leaves no mark of its own.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Refuses `text`, which is to become this kind of thing, if not all of it is seen. For what is named anew only: what was named
/// before is read as it is.
///
/// # Errors
/// [`Invalid`], which shows the characters by their numbers.
pub fn refuse_hidden(what: &'static str, text: &str) -> Result<(), Invalid> {
    match text.chars().any(is_hidden) {
        true => Err(Invalid::new(
            what,
            text,
            "it has a character that is not seen, or that changes how others are seen",
        )),
        false => Ok(()),
    }
}

/// As one word of a command for a POSIX shell: as it is where that is plain, else between quotes.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&b);
    match !word.is_empty() && word.bytes().all(plain) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_refused_by_its_number_and_letters_of_all_scripts_are_not() {
        for hidden in [
            '\u{7}',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = format!("photos{hidden}x");
            let why = refuse_hidden("volume name", &text).unwrap_err().to_string();
            assert!(why.contains(&hidden.escape_unicode().to_string()), "{why}");
            assert!(!why.contains(hidden), "{why:?}");
        }
        for text in ["photos", "Ünïcode/with slash", "फ़ोटो", "تصاویر", "写真 2026", "🏔", ""] {
            assert_eq!(refuse_hidden("volume name", text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_more_than_a_word() {
        for (word, expected) in [
            ("rack-1=nas", "rack-1=nas"),
            ("vol-0f8f", "vol-0f8f"),
            ("", "''"),
            ("my photos", "'my photos'"),
            ("x; reboot", "'x; reboot'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("~", "'~'"),
            ("#1", "'#1'"),
            ("ü", "'ü'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
