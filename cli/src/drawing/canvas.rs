//! A sheet of characters with inks, and lines of it with or without the terminal's codes.

use super::layout::Size;
use super::palette::{Ink, inked};

/// A sheet on which later writing covers earlier.
pub struct Canvas {
    rows: Vec<Vec<(char, Ink)>>,
}

impl Canvas {
    /// An empty sheet.
    pub fn new(size: Size) -> Self {
        Self { rows: vec![vec![(' ', Ink::Plain); size.x]; size.y] }
    }

    /// Writes to the right of a place; what does not fit is left out.
    pub fn write(&mut self, at: Size, ink: Ink, text: &str) {
        let Some(row) = self.rows.get_mut(at.y) else { return };
        for (cell, character) in row.iter_mut().skip(at.x).zip(text.chars()) {
            *cell = (character, ink);
        }
    }

    /// The sheet, line by line.
    pub fn into_lines(self) -> Vec<Line> {
        self.rows.into_iter().map(line).collect()
    }
}

fn line(row: Vec<(char, Ink)>) -> Line {
    let mut line = Line::default();
    for (character, ink) in row {
        line.push(ink, character.encode_utf8(&mut [0; 4]));
    }
    line
}

/// Pieces of text, each in its ink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pieces: Vec<(Ink, String)>,
}

impl Line {
    /// A line of one piece.
    pub fn of(ink: Ink, text: &str) -> Self {
        let mut line = Self::default();
        line.push(ink, text);
        line
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, ink: Ink, text: &str) {
        match self.pieces.last_mut() {
            Some((last, piece)) if *last == ink => piece.push_str(text),
            Some(_) | None => self.pieces.push((ink, text.to_owned())),
        }
    }

    /// The text without inks and without white space at its end.
    pub fn plain(&self) -> String {
        let text: String = self.pieces.iter().map(|(_, piece)| piece.as_str()).collect();
        text.trim_end().to_owned()
    }

    /// The text with the terminal's codes.
    pub fn coloured(&self) -> String {
        let mut pieces = self.pieces.clone();
        while pieces.last().is_some_and(|(ink, text)| *ink == Ink::Plain && text.trim_end().is_empty()) {
            pieces.pop();
        }
        if let Some((Ink::Plain, text)) = pieces.last_mut() {
            *text = text.trim_end().to_owned();
        }
        pieces.iter().map(|(ink, piece)| inked(*ink, piece)).collect()
    }
}
