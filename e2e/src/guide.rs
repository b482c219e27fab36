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
}
