//! The words between the harness and the program that answers inside a guest: one header line, then raw bytes.
//!
//! Only the standard library is used: the guest's program includes this file alone, so that its bytes, and the
//! snapshots that contain it, stay the same when the rest of the harness changes.

use std::io::{self, BufRead, Read};

/// The program in the guest reads the ports whose names begin like this.
pub const PORT_PREFIX: &str = "lamina.";

/// What a frame asks for or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks whether somebody answers; everything sent before the answer belongs to an earlier conversation.
    Sync,
    /// Answers `Sync`.
    Synced,
    /// Runs the body as a script of bash; the number is the longest time it may take, in seconds.
    Run,
    /// Writes a file; the number is its mode, the body its path, a zero byte and its content.
    Put,
    /// Asks for the content of the file whose path is the body.
    Get,
    /// A piece of standard output, or of the file asked for.
    Out,
    /// A piece of standard error, or why a request failed.
    Err,
    /// The last frame of an answer; the number is the exit code, negative for a signal.
    End,
}

const WORDS: [(Kind, &str); 8] = [
    (Kind::Sync, "SYNC"),
    (Kind::Synced, "SYNCED"),
    (Kind::Run, "RUN"),
    (Kind::Put, "PUT"),
    (Kind::Get, "GET"),
    (Kind::Out, "OUT"),
    (Kind::Err, "ERR"),
    (Kind::End, "END"),
];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What is asked or answered.
    pub kind: Kind,
    /// The request that an answer belongs to.
    pub request: u64,
    /// Meaning by kind.
    pub number: i64,
    /// Meaning by kind.
    pub body: Vec<u8>,
}

impl Frame {
    /// The frame as sent. It begins with a line break, so that it is found even behind half of another frame.
    pub fn encode(&self) -> Vec<u8> {
        let Self { kind, request, number, body } = self;
        let mut bytes = format!("\n{} {request} {number} {}\n", word(*kind), body.len()).into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads the next frame; lines that are no header are skipped. Nothing at the end of the stream.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if let Some((mut frame, length)) = header(&line) {
                stream.take(length).read_to_end(&mut frame.body)?;
                let is_whole = frame.body.len() as u64 == length;
                return if is_whole { Ok(Some(frame)) } else { Ok(None) };
            }
        }
    }
}

fn word(kind: Kind) -> &'static str {
    WORDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, word)| word)
}

fn header(line: &[u8]) -> Option<(Frame, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.trim_end().split(' ');
    let name = words.next()?;
    let kind = WORDS.iter().find(|(_, word)| *word == name)?.0;
    let request = words.next()?.parse().ok()?;
    let number = words.next()?.parse().ok()?;
    let length = words.next()?.parse().ok()?;
    Some((Frame { kind, request, number, body: Vec::new() }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_behind_half_of_another() {
        let whole = Frame { kind: Kind::Synced, request: 7, number: 0, body: b"body\n".to_vec() };
        let mut bytes = b"half of something that was cut".to_vec();
        bytes.extend(whole.encode());
        assert_eq!(Frame::read(&mut bytes.as_slice()).unwrap(), Some(whole));
    }

    #[test]
    fn a_frame_that_is_cut_off_is_no_frame() {
        let mut bytes = Frame { kind: Kind::Out, request: 1, number: 0, body: b"12345".to_vec() }.encode();
        bytes.pop();
        assert_eq!(Frame::read(&mut bytes.as_slice()).unwrap(), None);
    }
}
