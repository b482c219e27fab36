//! Touches standard output, the terminal behind it and the environment: how wide it is, and whether it shows colours.

use std::io::{self, IsTerminal, Write};

use crate::arguments::{ColorChoice, WideFormat};
use crate::drawing::Colour;

/// The width where standard output is no terminal, in characters.
const PLAIN_WIDTH: usize = 80;

/// Whether colours are written. `auto` asks for a terminal that knows them and for no `NO_COLOR` (no-color.org).
pub fn colour(choice: ColorChoice) -> Colour {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    match choice {
        ColorChoice::Always => Colour::Codes,
        ColorChoice::Auto if io::stdout().is_terminal() && !refused && !dumb => Colour::Codes,
        ColorChoice::Auto | ColorChoice::Never => Colour::None,
    }
}

/// How many characters a line holds.
pub fn width() -> usize {
    let columns = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let terminal = if io::stdout().is_terminal() { columns() } else { None };
    terminal.filter(|columns| *columns > 0).unwrap_or(PLAIN_WIDTH)
}

/// Tells somebody at a terminal what happens meanwhile: on standard error, and to nobody else.
pub fn progress(object: &str, deed: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{object}: {deed}");
    }
}

/// Parts an answer from the last one that it replaces: a terminal begins its page anew.
pub fn between(output: WideFormat) {
    let mark = match output {
        WideFormat::Table | WideFormat::Wide if io::stdout().is_terminal() => "\x1b[H\x1b[2J\x1b[3J",
        WideFormat::Table | WideFormat::Wide => "\n",
        WideFormat::Yaml => "---\n",
        // JSON documents part themselves.
        WideFormat::Json => "",
    };
    // Whoever does not read this does not read what follows, and that is told there.
    let _ = print(mark);
}

/// Whether somebody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The text was taken.
    Reads,
    /// Nobody reads any more: no fault, `head` has seen enough.
    Left,
}

/// Writes to standard output.
///
/// # Errors
/// Fails when the output cannot be written, except when its reader has left.
pub fn print(text: &str) -> io::Result<Reader> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Left),
        other => other.map(|()| Reader::Reads),
    }
}
