//! Reads unit files as systemd does, systemd.syntax(7): which setting stands where, and which lines say nothing.

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section, without brackets.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value; empty where it resets what stands before.
    pub value: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// A line that systemd ignores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// Why it says nothing.
    pub why: &'static str,
}

/// What a unit file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSettings {
    /// Its assignments, in order.
    pub settings: Vec<Setting>,
    /// Lines without effect.
    pub ignored: Vec<Ignored>,
}

impl UnitSettings {
    /// Reads a unit file.
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        let mut section: Option<String> = None;
        for (line, text) in logical_lines(text) {
            match parse(&text) {
                Line::Section(name) => section = Some(name.to_owned()),
                Line::Assignment(key, value) => match &section {
                    Some(section) => {
                        let (section, key, value) = (section.clone(), key.to_owned(), value.to_owned());
                        read.settings.push(Setting { section, key, value, line });
                    }
                    None => read.ignore(line, &text, "it stands before the first section"),
                },
                Line::Nonsense => read.ignore(line, &text, "it is no assignment"),
            }
        }
        read
    }

    fn ignore(&mut self, line: usize, text: &str, why: &'static str) {
        self.ignored.push(Ignored { line, text: text.to_owned(), why });
    }
}

enum Line<'a> {
    Section(&'a str),
    Assignment(&'a str, &'a str),
    Nonsense,
}

fn parse(text: &str) -> Line<'_> {
    if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Line::Section(name);
    }
    match text.split_once('=') {
        Some((key, value)) => Line::Assignment(key.trim_end(), value.trim_start()),
        None => Line::Nonsense,
    }
}

/// Lines without blanks around them and without comments; one that ends in a backslash goes on on the next, with a blank
/// in its place, and comments in between are left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let (begin, before) = open.take().unwrap_or((index + 1, String::new()));
        match line.trim_end_matches('\r').strip_suffix('\\') {
            Some(part) => open = Some((begin, format!("{before}{part} "))),
            None => lines.push((begin, format!("{before}{line}"))),
        }
    }
    lines.extend(open);
    let trimmed = lines.into_iter().map(|(line, text)| (line, text.trim().to_owned()));
    trimmed.filter(|(_, text)| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, String, usize)> {
        let settings = UnitSettings::read(text).settings.into_iter();
        settings.map(|setting| (setting.section, setting.key, setting.value, setting.line)).collect()
    }

    fn expected(list: &[(&str, &str, &str, usize)]) -> Vec<(String, String, String, usize)> {
        let owned = |(section, key, value, line): &(&str, &str, &str, usize)| {
            ((*section).to_owned(), (*key).to_owned(), (*value).to_owned(), *line)
        };
        list.iter().map(owned).collect()
    }

    #[test]
    fn sections_comments_resets_and_blanks_are_read() {
        let text = "# top\n[Unit]\nDescription = a b \n\n[Service]\n;X=1\nEnvironment=\nEnvironment=A=1 \"B=2 3\"\n";
        let settings = expected(&[
            ("Unit", "Description", "a b", 3),
            ("Service", "Environment", "", 7),
            ("Service", "Environment", "A=1 \"B=2 3\"", 8),
        ]);
        assert_eq!(read(text), settings);
    }

    #[test]
    fn a_backslash_continues_a_line_over_comments() {
        let text = "[Service]\r\nExecStart=/bin/x \\\n  # why\n  --flag \\\n  value\nUser=app\n";
        let settings = expected(&[("Service", "ExecStart", "/bin/x  --flag  value", 2), ("Service", "User", "app", 6)]);
        assert_eq!(read(text), settings);
    }

    #[test]
    fn a_comment_behind_a_value_belongs_to_it() {
        assert_eq!(read("[Slice]\nMemoryMin=4G # low\n"), expected(&[("Slice", "MemoryMin", "4G # low", 2)]));
    }

    #[test]
    fn lines_that_say_nothing_are_told() {
        let ignored = UnitSettings::read("User=app\n[Service]\nnonsense\n").ignored;
        let told: Vec<(usize, &str)> = ignored.iter().map(|ignored| (ignored.line, ignored.why)).collect();
        assert_eq!(told, [(1, "it stands before the first section"), (3, "it is no assignment")]);
    }
}
