//! Reads unit files as systemd does: sections, keys, continuation lines, quotes, escapes. Written apart from the code
//! that renders them, so that the two check each other. See systemd.syntax(7).

/// One assignment of a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section, without brackets.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value, trimmed, continuation lines joined by a space.
    pub value: String,
}

/// Why a file cannot be loaded at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A broken section header or bytes that are no text: `LoadState=error`.
    Broken,
}

/// All assignments of a file in their order. Lines without `=` are ignored with a warning, as systemd does.
pub fn assignments(content: &[u8]) -> Result<Vec<Assignment>, Unreadable> {
    let text = std::str::from_utf8(content).map_err(|_| Unreadable::Broken)?;
    let mut section = String::new();
    let mut found = Vec::new();
    for line in logical_lines(text) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.strip_suffix(']').ok_or(Unreadable::Broken)?.to_owned();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !section.is_empty()) {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            found.push(Assignment { section: section.clone(), key, value });
        }
    }
    Ok(found)
}

/// Lines with their continuations, without comments.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        match line.strip_suffix('\\') {
            Some(continued) => {
                whole.push_str(continued);
                whole.push(' ');
                open = Some(whole);
            }
            None => {
                whole.push_str(line);
                lines.push(whole);
            }
        }
    }
    lines.extend(open);
    lines
}

/// The words of a value, quotes and C escapes taken away, `%%` read as `%`. `None` if systemd would drop the value: an
/// open quote, an unknown escape, a specifier that would be expanded.
pub fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut characters = value.chars().peekable();
    loop {
        while characters.next_if(|character| character.is_ascii_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Some(words);
        }
        words.push(word(&mut characters)?);
    }
}

/// The words of a command line: as [`words`], and `$$` read as `$`.
pub fn command(value: &str) -> Option<Vec<String>> {
    let dollars = |word: String| {
        let plain = word.replace("$$", "");
        (!plain.contains('$')).then(|| word.replace("$$", "$"))
    };
    words(value)?.into_iter().map(dollars).collect()
}

fn word(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut quote = None;
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => bytes.extend(escaped(characters)?),
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            ('%', _) => {
                characters.next_if_eq(&'%')?;
                bytes.push(b'%');
            }
            (white, None) if white.is_ascii_whitespace() => return String::from_utf8(bytes).ok(),
            (other, _) => bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if quote.is_some() { None } else { String::from_utf8(bytes).ok() }
}

fn escaped(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Vec<u8>> {
    let plain = |byte: u8| Some(vec![byte]);
    match characters.next()? {
        'a' => plain(7),
        'b' => plain(8),
        'f' => plain(12),
        'n' => plain(b'\n'),
        'r' => plain(b'\r'),
        't' => plain(b'\t'),
        'v' => plain(11),
        's' => plain(b' '),
        '\\' => plain(b'\\'),
        '"' => plain(b'"'),
        '\'' => plain(b'\''),
        'x' => digits(characters, 2, 16).and_then(|code| u8::try_from(code).ok()).map(|byte| vec![byte]),
        'u' => unicode(digits(characters, 4, 16)?),
        'U' => unicode(digits(characters, 8, 16)?),
        _ => None,
    }
}

fn unicode(code: u32) -> Option<Vec<u8>> {
    char::from_u32(code).map(|character| character.to_string().into_bytes())
}

fn digits(characters: &mut std::iter::Peekable<std::str::Chars<'_>>, count: usize, base: u32) -> Option<u32> {
    let text: String = characters.by_ref().take(count).collect();
    if text.len() == count { u32::from_str_radix(&text, base).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_and_continuations_are_read_as_systemd_reads_them() {
        let text =
            b"# a comment\n[Service]\nUser = me\nExecStart=/bin/x \\\n# inside\n  y\nnonsense\n[Install]\nWantedBy=z";
        let read = assignments(text).expect("it is readable");
        let flat: Vec<String> = read.iter().map(|a| format!("{}.{}={}", a.section, a.key, a.value)).collect();
        assert_eq!(flat, ["Service.User=me", "Service.ExecStart=/bin/x    y", "Install.WantedBy=z"]);
        assert_eq!(assignments(b"[Service\nUser=me"), Err(Unreadable::Broken));
    }

    #[test]
    fn words_lose_their_quotes_and_escapes() {
        let read = words(r#"plain "two words" 'it"s' a\x20b "50%%" "\u00e9""#).expect("it is readable");
        assert_eq!(read, ["plain", "two words", "it\"s", "a b", "50%", "é"]);
        assert_eq!(words("\"open"), None);
        assert_eq!(words("%h"), None);
        assert_eq!(command("/bin/x $$HOME"), Some(vec!["/bin/x".into(), "$HOME".into()]));
        assert_eq!(command("/bin/x $HOME"), None);
    }
}
