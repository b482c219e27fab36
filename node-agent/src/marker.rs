//! Decides whose a unit file is: ours carries the topology and a hash of its content in its first and last line.

use lamina_crds::TopologyName;
use lamina_crds::host_state::digest_of_bytes;

/// Whose a file at one of our paths is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Ours, as written.
    Intact,
    /// Ours, but edited or torn: the hash or the last line is wrong.
    Damaged,
    /// Empty: ours only if we know that we wrote it, because a power cut may have emptied it.
    Empty,
    /// Somebody else's.
    Foreign,
}

/// The body between a first and a last line that say whose it is.
pub fn sealed(topology: &TopologyName, body: &str) -> String {
    let hash = digest_of_bytes(body.as_bytes());
    format!("# Lamina: {topology} {hash}\n{body}# Lamina: end {hash}\n")
}

/// Whose this content is, seen from a topology.
pub fn mark(topology: &TopologyName, content: &[u8]) -> Mark {
    if content.is_empty() {
        return Mark::Empty;
    }
    let text = String::from_utf8_lossy(content);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let Some(hash) = first.strip_prefix("# Lamina: ").and_then(|mark| mark.split_once(' ')) else {
        return Mark::Foreign;
    };
    if hash.0 != topology.as_str() {
        return Mark::Foreign;
    }
    let whole = rest
        .strip_suffix(&format!("# Lamina: end {}\n", hash.1))
        .is_some_and(|body| digest_of_bytes(body.as_bytes()) == hash.1);
    if whole { Mark::Intact } else { Mark::Damaged }
}

/// Whether the content is what Lamina wrote, for whichever topology.
pub fn is_intact(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let name = text.strip_prefix("# Lamina: ").and_then(|rest| rest.split(' ').next());
    let topology = name.and_then(|name| TopologyName::new(name).ok());
    topology.is_some_and(|topology| mark(&topology, content) == Mark::Intact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(name: &str) -> TopologyName {
        TopologyName::new(name).expect("a legal name")
    }

    #[test]
    fn a_sealed_file_is_known_again() {
        let text = sealed(&topology("shop"), "[Slice]\nMemoryMax=1\n");
        assert!(text.starts_with("# Lamina: shop ") && text.ends_with('\n'));
        assert_eq!(mark(&topology("shop"), text.as_bytes()), Mark::Intact);
        assert_eq!(mark(&topology("other"), text.as_bytes()), Mark::Foreign);
    }

    #[test]
    fn an_edited_or_torn_file_is_damaged_and_still_ours() {
        let text = sealed(&topology("shop"), "[Slice]\nMemoryMax=1\n");
        let edited = text.replace("MemoryMax=1", "MemoryMax=2");
        assert_eq!(mark(&topology("shop"), edited.as_bytes()), Mark::Damaged);
        assert_eq!(mark(&topology("shop"), &text.as_bytes()[..text.len() - 5]), Mark::Damaged);
        assert_eq!(mark(&topology("shop"), &[text.as_bytes(), b"X=1\n"].concat()), Mark::Damaged);
    }

    #[test]
    fn what_we_never_wrote_is_foreign_and_nothing_is_empty() {
        assert_eq!(mark(&topology("shop"), b"[Service]\nExecStart=/bin/true\n"), Mark::Foreign);
        assert_eq!(mark(&topology("shop"), &[0xff, 0xfe, 0]), Mark::Foreign);
        assert_eq!(mark(&topology("shop"), b""), Mark::Empty);
    }
}
