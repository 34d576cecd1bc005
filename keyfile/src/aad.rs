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

/// Lists of parts up to this many bytes are put together without an allocation.
const INLINE_BYTES: usize = 320;

/// As [`parts`], lent to `use_them`: the parts of an entry fit on the stack.
pub(crate) fn with_parts<R>(list: &[&[u8]], use_them: impl FnOnce(&[u8]) -> R) -> R {
    let total = list.iter().map(|p| p.len().saturating_add(4)).fold(0, usize::saturating_add);
    let mut inline = [0; INLINE_BYTES];
    let Some(room) = inline.get_mut(..total) else { return use_them(&parts(list)) };
    let mut rest = &mut *room;
    for bytes in list {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        let (to_length, after) = rest.split_at_mut(length.len());
        to_length.copy_from_slice(&length);
        let (to_bytes, after) = after.split_at_mut(bytes.len());
        to_bytes.copy_from_slice(bytes);
        rest = after;
    }
    use_them(room)
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
        self.with_aad(header, <[u8]>::to_vec)
    }

    pub(crate) fn with_aad<R>(&self, header: &[u8], use_it: impl FnOnce(&[u8]) -> R) -> R {
        let list = [
            RECORD_LABEL,
            self.cluster.as_bytes(),
            self.lineage.as_bytes(),
            self.stream.as_bytes(),
            self.name.as_bytes(),
            &self.sequence.0.to_be_bytes(),
            header,
        ];
        with_parts(&list, use_it)
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

    #[test]
    fn parts_on_the_stack_and_on_the_heap_are_the_same_bytes() {
        for length in [0, 1, INLINE_BYTES - 9, INLINE_BYTES - 8, INLINE_BYTES - 7, 2 * INLINE_BYTES] {
            let list: [&[u8]; 2] = [&vec![7; length], b""];
            assert!(with_parts(&list, |bytes| bytes == parts(&list)), "{length}");
        }
    }
}
