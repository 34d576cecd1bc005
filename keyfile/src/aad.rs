//! What a sealed value is bound to: every part after its length, never joined with a separator
//! (SPEC keyfile, section 7.3).

use crate::id::{ClusterId, Lineage, Sequence};

/// First part of every AAD of the sealed log.
pub const RECORD_LABEL: &[u8] = b"unibus/record/v1";

/// Appends a part after its length (u32, big-endian).
pub(crate) fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// All parts, each after its length; also what HPKE gets as `info`.
#[must_use]
pub fn parts(list: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.iter().map(|p| p.len() + 4).sum());
    for bytes in list {
        part(&mut out, bytes);
    }
    out
}

/// The place of an entry in the sealed log.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Cluster the entry belongs to.
    pub cluster: &'a ClusterId,
    /// History the entry belongs to.
    pub lineage: &'a Lineage,
    /// Name of the stream.
    pub stream: &'a str,
    /// Blinded entry name.
    pub name: &'a str,
    /// Sequence at which the entry stands.
    pub sequence: Sequence,
}

impl Place<'_> {
    /// The AAD of an entry at this place, with its header as read.
    #[must_use]
    pub fn aad(&self, header: &[u8]) -> Vec<u8> {
        parts(&[
            RECORD_LABEL,
            self.cluster.as_bytes(),
            self.lineage.as_bytes(),
            self.stream.as_bytes(),
            self.name.as_bytes(),
            &self.sequence.0.to_be_bytes(),
            header,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_parts_changes_the_bytes() {
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
        assert_ne!(parts(&[b"a"]), parts(&[b"a", b""]));
    }
}
