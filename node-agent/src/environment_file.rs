//! Reads files of environment variables as systemd does, systemd.exec(5) `EnvironmentFile=`.

use std::collections::BTreeMap;

/// The variables in a file; of several assignments to a name the last one counts, and lines that assign nothing count
/// for nothing.
pub fn variables(text: &str) -> BTreeMap<String, String> {
    let mut characters = text.chars().peekable();
    let mut found = BTreeMap::new();
    while let Some(next) = characters.peek() {
        match next {
            ' ' | '\t' | '\r' | '\n' => {
                characters.next();
            }
            '#' | ';' => comment(&mut characters),
            _ => {
                if let Some((name, value)) = assignment(&mut characters) {
                    found.insert(name, value);
                }
            }
        }
    }
    found
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// A comment ends with its line, unless a backslash continues it.
fn comment(characters: &mut Characters<'_>) {
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '\n' => return,
            _ => {}
        }
    }
}

fn assignment(characters: &mut Characters<'_>) -> Option<(String, String)> {
    let mut name = String::new();
    loop {
        match characters.next() {
            None | Some('\n') => return None,
            Some('=') => break,
            Some(character) => name.push(character),
        }
    }
    let value = value(characters);
    let name = name.trim_end().to_owned();
    let is_name = name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    let starts = name.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_');
    (is_name && starts).then_some((name, value))
}

/// A value in one or several parts, quoted or not; blanks around unquoted parts do not belong to it.
fn value(characters: &mut Characters<'_>) -> String {
    while characters.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
    let mut value = String::new();
    let mut kept = 0;
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\r' => break,
            '\'' => {
                value.extend(characters.by_ref().take_while(|next| *next != '\''));
                kept = value.len();
            }
            '"' => {
                quoted(characters, &mut value);
                kept = value.len();
            }
            '\\' => {
                if let Some(next) = characters.next().filter(|next| *next != '\n') {
                    value.push(next);
                    kept = value.len();
                }
            }
            ' ' | '\t' => value.push(character),
            _ => {
                value.push(character);
                kept = value.len();
            }
        }
    }
    value.truncate(kept);
    value
}

/// Up to the closing quote; only a few characters are escaped there.
fn quoted(characters: &mut Characters<'_>, value: &mut String) {
    while let Some(character) = characters.next() {
        match character {
            '"' => return,
            '\\' => match characters.next() {
                Some(next @ ('"' | '\\' | '`' | '$')) => value.push(next),
                Some('\n') | None => {}
                Some(next) => value.extend(['\\', next]),
            },
            _ => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use lamina_crds::text::{EnvName, EnvValue};
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        variables(text).into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn comments_blanks_and_repeated_names_are_read_as_systemd_does() {
        let text = "# a comment\n; another\n\nPORT=8080\n  HOST = local host \nPORT=9090\nnonsense\n2X=1\n";
        assert_eq!(read(text), pairs(&[("HOST", "local host"), ("PORT", "9090")]));
    }

    #[test]
    fn quotes_escapes_and_continued_lines_are_read_as_systemd_does() {
        let text = "A=\"x \\\" \\n\"\nB='c \\ d'\nC=one\\\ntwo\nD=\"p\"'q'r\nE=\n";
        assert_eq!(read(text), pairs(&[("A", "x \" \\n"), ("B", "c \\ d"), ("C", "onetwo"), ("D", "pqr"), ("E", "")]));
    }

    proptest! {
        #[test]
        fn what_lamina_writes_is_read_back(name in "[A-Z_][A-Z0-9_]{0,8}", value in "([ -~]{0,24}[ -Z])?") {
            let (name, value) = (EnvName::new(name).expect("legal"), EnvValue::new(value).expect("legal"));
            let text = crate::unit_text::environment_file([(&name, value.as_str())].into_iter());
            prop_assert_eq!(read(&text), pairs(&[(name.as_str(), value.as_str())]));
        }
    }
}
