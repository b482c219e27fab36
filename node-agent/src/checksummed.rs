//! Decides whether a file of the agent's own is whole: its first line names its kind and carries a checksum of the rest.

use sha2::{Digest, Sha256};

/// The content of a file of this kind with this body.
pub fn wrap(kind: &str, body: &str) -> String {
    format!("{}{body}\n", first_line(kind, body))
}

/// The body of a whole file of this kind.
pub fn unwrap<'a>(kind: &str, content: &'a [u8]) -> Option<&'a str> {
    let text = std::str::from_utf8(content).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let body = rest.strip_suffix('\n')?;
    (format!("{first}\n") == first_line(kind, body)).then_some(body)
}

fn first_line(kind: &str, body: &str) -> String {
    let digest: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind} sha256 {digest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_of_its_kind_is_read() {
        let content = wrap("some-kind", "{}");
        assert_eq!(unwrap("some-kind", content.as_bytes()), Some("{}"));
        assert_eq!(unwrap("other-kind", content.as_bytes()), None);
        for end in 0..content.len() {
            assert_eq!(unwrap("some-kind", &content.as_bytes()[..end]), None, "{end}");
        }
    }
}
