//! The colours of roles: seven that stay apart for people who do not tell red from green (after Okabe and Ito), as
//! terminal codes and as hexadecimal numbers. Letters and patterns say the same, so colour is never alone.

/// Fills for slices, each with the colour of text on it.
pub const SLICES: [(&str, &str); 7] = [
    ("#0072B2", "#FFFFFF"),
    ("#E69F00", "#000000"),
    ("#009E73", "#000000"),
    ("#F0E442", "#000000"),
    ("#CC79A7", "#000000"),
    ("#56B4E9", "#000000"),
    ("#D55E00", "#000000"),
];

/// The same for terminals of 256 colours: background and text.
const TERMINAL: [(u8, u8); 7] = [(25, 231), (214, 16), (36, 16), (227, 16), (175, 16), (117, 16), (166, 16)];

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ink {
    /// As the terminal has it.
    #[default]
    Plain,
    /// For headings.
    Bold,
    /// For what is less important.
    Faint,
    /// On the colour of a slice.
    Slice(usize),
    /// Underlined: beside a slice.
    Idle,
    /// For what no slice may take.
    Kept,
    /// For what is switched off.
    Off,
}

/// The same text with the terminal's codes around it.
pub fn inked(ink: Ink, text: &str) -> String {
    let codes = match ink {
        Ink::Plain => return text.to_owned(),
        Ink::Bold => "1".to_owned(),
        Ink::Faint => "2".to_owned(),
        Ink::Slice(index) => {
            let (background, foreground) = TERMINAL[index % TERMINAL.len()];
            format!("48;5;{background};38;5;{foreground}")
        }
        Ink::Idle => "4".to_owned(),
        Ink::Kept => "48;5;240;38;5;255".to_owned(),
        Ink::Off => "2;9".to_owned(),
    };
    format!("\x1b[{codes}m{text}\x1b[0m")
}

/// Surfaces and texts of one theme of an SVG drawing.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// Behind everything.
    pub ground: &'static str,
    /// A frame.
    pub frame: &'static str,
    /// A tile.
    pub tile: &'static str,
    /// A core.
    pub core: &'static str,
    /// Borders.
    pub line: &'static str,
    /// Text.
    pub text: &'static str,
    /// Text that is less important.
    pub faint: &'static str,
    /// Hatching over what no slice may take.
    pub hatch: &'static str,
}

/// For light surroundings.
pub const LIGHT: Sheet = Sheet {
    ground: "#FFFFFF",
    frame: "#F4F6F8",
    tile: "#FFFFFF",
    core: "#E9EDF1",
    line: "#C9D1D9",
    text: "#1F2328",
    faint: "#59636E",
    hatch: "#8A949E",
};

/// For dark surroundings.
pub const DARK: Sheet = Sheet {
    ground: "#0D1117",
    frame: "#151B23",
    tile: "#0D1117",
    core: "#262C36",
    line: "#3D444D",
    text: "#F0F6FC",
    faint: "#9198A1",
    hatch: "#6E7781",
};
