//! Decides what a page of the documentation tells its readers to run, so that tests can run it as it is written.

/// Who a command is for: the second word behind the opening fence, as in "```sh host".
pub const ADMIN: &str = "admin";
/// The machine that joins.
pub const HOST: &str = "host";

/// The blocks of a page for this reader, in their order. `settings` replaces what a line such as `HOST=host-12` sets.
pub fn blocks(page: &str, reader: &str, settings: &[(&str, &str)]) -> Vec<String> {
    let fence = format!("```sh {reader}");
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            None if line == fence => open = Some(String::new()),
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => {
                block.push_str(&set(line, settings));
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// One command of a session on a page, and what it answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The host whose prompt it stands behind; none for whoever administers the cluster.
    pub host: Option<String>,
    /// The command.
    pub line: String,
    /// The lines below it, up to the next prompt.
    pub answer: Vec<String>,
}

/// The commands of all sessions of a page whose fence bears this word, as in "```console quickstart".
pub fn steps(page: &str, word: &str) -> Vec<Step> {
    let fence = format!("```console {word}");
    let mut steps: Vec<Step> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match (is_open, prompt(line)) {
            (false, _) => is_open = line == fence,
            (true, _) if line == "```" => is_open = false,
            (true, Some((host, line))) => steps.push(Step { host, line: line.to_owned(), answer: Vec::new() }),
            (true, None) => steps.last_mut().into_iter().for_each(|step| step.answer.push(line.to_owned())),
        }
    }
    steps
}

/// What stands behind `$ ` or `host-1# `.
fn prompt(line: &str) -> Option<(Option<String>, &str)> {
    let (prompt, rest) = line.split_once(' ')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|symbol| symbol.is_alphanumeric() || symbol == '-');
    match prompt.strip_suffix('#') {
        Some(host) if is_name(host) => Some((Some(host.to_owned()), rest)),
        None if prompt == "$" => Some((None, rest)),
        Some(_) | None => None,
    }
}

/// Whether an answer is what the page says. Columns may be wider or narrower, and the last one may be another age.
pub fn agrees(written: &[String], found: &str) -> bool {
    let found: Vec<&str> = found.lines().filter(|line| !line.trim().is_empty()).collect();
    written.len() == found.len() && written.iter().zip(found).all(|(written, found)| words(written) == words(found))
}

/// Whether an answer has the shape of what the page says: other numbers and ages are as good, and a line `...` stands for
/// any lines.
pub fn agrees_in_shape(written: &[String], found: &str) -> bool {
    let shaped = |line: &str| line.split_whitespace().map(shape).collect::<Vec<_>>();
    let is_something = |line: &Vec<String>| !line.is_empty();
    let written: Vec<Vec<String>> = written.iter().map(|line| shaped(line)).filter(is_something).collect();
    let found: Vec<Vec<String>> = found.lines().map(shaped).filter(is_something).collect();
    fits(&written, &found)
}

fn fits(written: &[Vec<String>], found: &[Vec<String>]) -> bool {
    match written.split_first() {
        None => found.is_empty(),
        Some((line, rest)) if *line == ["..."] => (0..=found.len()).any(|skipped| fits(rest, &found[skipped..])),
        Some((line, rest)) => found.split_first().is_some_and(|(other, found)| line == other && fits(rest, found)),
    }
}

/// A word with every number in it as `#`, every age as `#s`, and units of memory as one.
fn shape(word: &str) -> String {
    if is_age(word) {
        return "#s".to_owned();
    }
    if ["KiB", "MiB", "GiB"].contains(&word) {
        return "B".to_owned();
    }
    let symbols: Vec<char> = word.chars().collect();
    let is_digit = |at: usize| symbols.get(at).is_some_and(char::is_ascii_digit);
    let mut shape = String::new();
    for (at, symbol) in symbols.iter().enumerate() {
        let is_point = *symbol == '.' && at > 0 && is_digit(at - 1) && is_digit(at + 1);
        let symbol = if is_point || is_digit(at) { '#' } else { *symbol };
        if symbol != '#' || !shape.ends_with('#') {
            shape.push(symbol);
        }
    }
    shape
}

fn words(line: &str) -> Vec<&str> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.len() > 1 && words.last().is_some_and(|word| is_age(word)) {
        words.pop();
    }
    words
}

/// An age as kubectl prints it: `9s`, `2m15s`, `3d`.
fn is_age(word: &str) -> bool {
    let parts: Vec<&str> = word.split_inclusive(['s', 'm', 'h', 'd']).collect();
    let is_part = |part: &&str| {
        let digits = part.trim_end_matches(['s', 'm', 'h', 'd']);
        digits.len() < part.len() && digits.parse::<u32>().is_ok()
    };
    !parts.is_empty() && parts.iter().all(is_part)
}

fn set(line: &str, settings: &[(&str, &str)]) -> String {
    let setting = settings.iter().find(|(name, _)| line.starts_with(&format!("{name}=")));
    setting.map_or_else(|| line.to_owned(), |(name, value)| format!("{name}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_reader_with_what_is_set() {
        let page = "Text\n```sh admin\nHOST=a # yours\nkubectl get $HOST\n```\n```sh host\nls\n```\n```sh\nno\n```\n";
        assert_eq!(blocks(page, ADMIN, &[("HOST", "b")]), ["HOST=b\nkubectl get $HOST\n"]);
        assert_eq!(blocks(page, HOST, &[]), ["ls\n"]);
    }

    #[test]
    fn a_session_is_commands_and_their_answers() {
        let page = "```console\n$ no\n```\n```console tour\n$ kubectl get x\nNAME AGE\na    9s\nhost-1# ls\n```\n";
        let found = steps(page, "tour");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].host.as_deref(), found[0].line.as_str()), (None, "kubectl get x"));
        assert!(agrees(&found[0].answer, "NAME   AGE\na      2m15s\n"));
        assert!(!agrees(&found[0].answer, "NAME   AGE\nb      2m15s\n"));
        assert_eq!((found[1].host.as_deref(), found[1].line.as_str()), (Some("host-1"), "ls"));
        assert!(agrees(&found[1].answer, "") && !is_age("4s2") && !is_age("s") && is_age("3d"));
    }

    #[test]
    fn a_shape_is_words_without_their_numbers() {
        let written = ["UNIT  CPU  SINCE", "...", "web   0.10  3m", "", "over 2.0 s"].map(str::to_owned);
        assert!(agrees_in_shape(&written, "UNIT CPU SINCE\nx\ny 1\nweb 12.0 40s\nover 2.1 s\n"));
        assert!(agrees_in_shape(&written, "UNIT CPU SINCE\nweb 2.0 40s\nover 2.1 s\n"));
        assert!(!agrees_in_shape(&written, "UNIT CPU SINCE\nworker 2.0 40s\nover 2.1 s\n"));
        assert!(!agrees_in_shape(&written, "UNIT CPU SINCE\nweb 2.0 40s\n"));
        assert_eq!(["99.7", "100", "8-9", "KiB", "v1.2.", "a.b"].map(shape), ["#", "#", "#-#", "B", "v#.", "a.b"]);
    }
}
