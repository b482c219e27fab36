//! Builds unit files from typed parts. The only place where values become unit text, so the only one that escapes.

use std::fmt;

use lamina_crds::text::{Argument, EnvName};

/// A unit file that is being built, section by section. systemd.syntax(7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    text: String,
}

/// A value whose type has a closed alphabet, in which nothing can be mistaken for syntax or a specifier.
pub trait Plain: fmt::Display {}

impl Plain for lamina_crds::UnitName {}
impl Plain for lamina_crds::UserName {}
impl Plain for lamina_crds::text::AbsolutePath {}
impl Plain for lamina_crds::Bytes {}
impl Plain for crate::host_path::HostPath {}
impl Plain for crate::property::Value {}
impl Plain for u64 {}
/// Words of the program itself, never of a user.
impl Plain for &'static str {}

impl UnitFile {
    /// A file without a section.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a section.
    pub fn section(mut self, name: &'static str) -> Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("[{name}]\n"));
        self
    }

    /// Sets a key to a value that needs no escaping.
    pub fn set(self, key: &'static str, value: &impl Plain) -> Self {
        self.line(key, &value.to_string())
    }

    /// Sets a key to a value if there is one.
    pub fn set_some(self, key: &'static str, value: Option<&impl Plain>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Empties a list setting, so that what earlier files added to it is gone.
    pub fn reset(self, key: &'static str) -> Self {
        self.line(key, "")
    }

    /// Sets a free text that ends at the end of the line, such as a description: only specifiers mean something there.
    pub fn text(self, key: &'static str, value: &str) -> Self {
        let escaped = value.replace('%', "%%");
        self.line(key, &escaped)
    }

    /// Sets a command line whose words reach the program exactly as given. systemd.service(5) "Command lines".
    pub fn command(self, key: &'static str, words: &[Argument]) -> Self {
        let words: Vec<String> = words.iter().map(|word| quoted(&word.replace('$', "$$"))).collect();
        self.line(key, &words.join(" "))
    }

    /// Adds one assignment of a variable, taken literally: `Environment=`, `LogExtraFields=`. A `$` means nothing there.
    pub fn variable(self, key: &'static str, name: &str, value: &str) -> Self {
        self.line(key, &quoted(&format!("{name}={value}")))
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(mut self, key: &'static str, value: &str) -> Self {
        self.text.push_str(&format!("{key}={value}\n"));
        self
    }
}

/// One word in double quotes with C-style escapes and doubled specifiers.
fn quoted(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 2);
    text.push('"');
    for character in word.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '%' => text.push_str("%%"),
            // The types let no control character through; one that comes all the same must not end the line.
            control if control.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => text.push(plain),
        }
    }
    text.push('"');
    text
}

/// A file of environment variables, systemd.exec(5) `EnvironmentFile=`: double quotes, in which only `"`, `\`, a backtick
/// and `$` are escaped and nothing is expanded.
pub fn environment_file<'a>(variables: impl Iterator<Item = (&'a EnvName, &'a str)>) -> String {
    let line = |(name, value): (&EnvName, &str)| {
        let escaped: String = value
            .chars()
            .flat_map(|character| match character {
                '"' | '\\' | '`' | '$' => vec!['\\', character],
                plain => vec![plain],
            })
            .collect();
        format!("{name}=\"{escaped}\"\n")
    };
    variables.map(line).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use lamina_crds::text::EnvValue;
    use proptest::prelude::*;

    use super::*;

    /// Reads unit text as systemd.syntax(7) describes it; written independently of the builder.
    pub(crate) fn settings(text: &str) -> Vec<(String, String, String)> {
        let mut section = String::new();
        let mut found = Vec::new();
        let mut pending = String::new();
        for line in text.split('\n') {
            let line = if pending.is_empty() { line.trim_start() } else { line };
            if pending.is_empty() && (line.is_empty() || line.starts_with(['#', ';'])) {
                continue;
            }
            if let Some(joined) = line.strip_suffix('\\') {
                pending.push_str(joined);
                pending.push(' ');
                continue;
            }
            let line = std::mem::take(&mut pending) + line;
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        found
    }

    /// Splits a value into words as systemd does, with quotes and C-style escapes.
    pub(crate) fn words(value: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote: Option<char> = None;
        let mut characters = value.chars();
        while let Some(character) = characters.next() {
            match (character, quote) {
                ('\\', _) => match characters.next().expect("something is escaped") {
                    'n' => word.get_or_insert_default().push('\n'),
                    't' => word.get_or_insert_default().push('\t'),
                    'u' => {
                        let code: String = characters.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&code, 16).expect("four hexadecimal digits");
                        word.get_or_insert_default().push(char::from_u32(code).expect("a character"));
                    }
                    other => word.get_or_insert_default().push(other),
                },
                (mark, Some(open)) if mark == open => quote = None,
                (mark @ ('"' | '\''), None) => {
                    quote = Some(mark);
                    word.get_or_insert_default();
                }
                (' ', None) => words.extend(word.take()),
                (plain, _) => word.get_or_insert_default().push(plain),
            }
        }
        assert_eq!(quote, None, "an open quote in {value}");
        words.extend(word);
        words
    }

    fn without_specifiers(word: &str) -> String {
        assert!(!word.replace("%%", "").contains('%'), "a live specifier in {word}");
        word.replace("%%", "%")
    }

    fn without_variables(word: &str) -> String {
        assert!(!word.replace("$$", "").contains('$'), "a live variable in {word}");
        word.replace("$$", "$")
    }

    fn command_of(arguments: &[&str]) -> String {
        let words: Vec<Argument> = arguments.iter().map(|word| Argument::new(*word).expect("legal")).collect();
        UnitFile::new().section("Service").command("ExecStart", &words).finish()
    }

    fn read_back(text: &str) -> Vec<String> {
        let settings = settings(text);
        assert_eq!(settings.len(), 1, "{text}");
        let words = words(&settings[0].2);
        words.iter().map(|word| without_variables(&without_specifiers(word))).collect()
    }

    #[test]
    fn what_looks_like_syntax_reaches_the_program_as_it_is() {
        let hostile = [
            "/bin/x",
            "\\n",
            "\\x0a",
            "%h",
            "%%",
            "%Z",
            "$HOME",
            "${X}",
            "$$",
            ";",
            "\"",
            "'",
            "#x",
            ";x",
            "",
            "a b",
            "\\",
            "+/bin/sh",
            "[Service]",
            "ä€",
        ];
        let legal: Vec<&str> = hostile.into_iter().filter(|word| Argument::new(*word).is_ok()).collect();
        assert_eq!(legal.len(), hostile.len() - 1, "only the lone backslash is refused by the type");
        assert_eq!(read_back(&command_of(&legal)), legal);
    }

    #[test]
    fn a_lone_semicolon_does_not_begin_a_second_command() {
        assert_eq!(command_of(&["/bin/x", ";", "/bin/y"]), "[Service]\nExecStart=\"/bin/x\" \";\" \"/bin/y\"\n");
    }

    #[test]
    fn a_variable_keeps_its_dollar() {
        let text = UnitFile::new().section("Service").variable("Environment", "A", "$B 100%").finish();
        assert_eq!(text, "[Service]\nEnvironment=\"A=$B 100%%\"\n");
    }

    #[test]
    fn an_environment_file_escapes_what_its_reader_unescapes() {
        let name = EnvName::new("A").expect("legal");
        let text = environment_file([(&name, "x\"y\\z`$w 'q' %h")].into_iter());
        assert_eq!(text, "A=\"x\\\"y\\\\z\\`\\$w 'q' %h\"\n");
    }

    proptest! {
        #[test]
        fn every_legal_argument_is_read_back_as_given(arguments in proptest::collection::vec("\\PC{0,40}", 1..6)) {
            let legal: Vec<&str> =
                arguments.iter().map(String::as_str).filter(|word| Argument::new(*word).is_ok()).collect();
            prop_assume!(!legal.is_empty());
            prop_assert_eq!(read_back(&command_of(&legal)), legal);
        }

        #[test]
        fn every_legal_value_of_a_variable_is_read_back_as_given(value in "\\PC{0,60}") {
            prop_assume!(EnvValue::new(value.as_str()).is_ok());
            let text = UnitFile::new().section("Service").variable("Environment", "A", &value).finish();
            let words = words(&settings(&text)[0].2);
            prop_assert_eq!(words.len(), 1);
            prop_assert_eq!(without_specifiers(&words[0]), format!("A={value}"));
        }
    }
}
