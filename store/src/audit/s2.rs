//! Unpacks S2, in which nats-server writes the snapshots of its meta group: names of streams and subjects stand in them
//! whatever encrypts the rest.
//!
//! S2 is Snappy's block format (its `format_description.txt`) with one addition: a copy with offset zero repeats the
//! last offset.

use zeroize::Zeroizing;

/// Most bytes that are unpacked.
const MAX_BYTES: usize = 256 << 20;

/// Unpacks one block. `None` for what is no whole block.
pub(crate) fn unpack(block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (length, mut rest) = varint(block)?;
    // A block cannot unpack to more than this; so a planted length takes no memory.
    let length = usize::try_from(length).ok().filter(|&length| length <= MAX_BYTES)?;
    let mut out = Zeroizing::new(Vec::with_capacity(length.min(block.len().saturating_mul(64))));
    let mut offset = 0;
    while let Some((&tag, after)) = rest.split_first() {
        let high = usize::from(tag >> 2);
        let count = match tag & 3 {
            0 => {
                let (count, after) = literal_length(high, after)?;
                let (literal, after) = after.split_at_checked(count)?;
                out.extend_from_slice(literal);
                rest = after;
                continue;
            }
            1 => {
                let (&low, after) = after.split_first()?;
                let near = (usize::from(tag >> 5) << 8) | usize::from(low);
                if near == 0 {
                    let (count, after) = repeat_length(high & 7, after)?;
                    rest = after;
                    count
                } else {
                    (offset, rest) = (near, after);
                    (high & 7) + 4
                }
            }
            2 => {
                let (far, after) = number(after, 2)?;
                (offset, rest) = (far, after);
                high + 1
            }
            _ => {
                let (far, after) = number(after, 4)?;
                (offset, rest) = (far, after);
                high + 1
            }
        };
        copy(&mut out, offset, count, length)?;
    }
    (out.len() == length).then_some(out)
}

/// Appends what stands `offset` bytes before the end; the copy may run into itself.
fn copy(out: &mut Vec<u8>, offset: usize, count: usize, limit: usize) -> Option<()> {
    let start = out.len().checked_sub(offset).filter(|_| offset > 0)?;
    if out.len().checked_add(count)? > limit {
        return None;
    }
    for at in start..start + count {
        let byte = *out.get(at)?;
        out.push(byte);
    }
    Some(())
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// A number of `width` bytes, low byte first.
fn number(bytes: &[u8], width: usize) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_at_checked(width)?;
    Some((number.iter().rev().fold(0, |value, &byte| (value << 8) | usize::from(byte)), rest))
}

fn literal_length(code: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    if code < 60 {
        return Some((code + 1, rest));
    }
    let (length, rest) = number(rest, code - 59)?;
    Some((length + 1, rest))
}

fn repeat_length(code: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = match code {
        5 => number(rest, 1).map(|(length, rest)| (length + 4, rest))?,
        6 => number(rest, 2).map(|(length, rest)| (length + (1 << 8), rest))?,
        7 => number(rest, 3).map(|(length, rest)| (length + (1 << 16), rest))?,
        _ => (code, rest),
    };
    Some((length + 4, rest))
}

/// Unpacks a snapshot of one of nats-server's groups: last term and index (8 bytes each), a length (4 bytes, low byte
/// first) and so many bytes of peers, the block, 8 bytes of checksum.
pub(crate) fn unpack_group_snapshot(file: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const CHECKSUM_BYTES: usize = 8;
    let (peers, rest) = number(file.get(16..)?, 4)?;
    let rest = rest.get(peers..)?;
    let block = rest.get(..rest.len().checked_sub(CHECKSUM_BYTES)?)?;
    // A group that has nothing yet packs nothing.
    if block.is_empty() { Some(Zeroizing::new(Vec::new())) } else { unpack(block) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(block: &[u8]) -> Option<Vec<u8>> {
        unpack(block).map(|out| out.to_vec())
    }

    #[test]
    fn literals_copies_and_repeats_unpack() {
        assert_eq!(unpacked(b"\x03\x08abc").unwrap(), b"abc");
        // "abc", then 6 bytes from 3 before: a copy that runs into itself.
        assert_eq!(unpacked(b"\x09\x08abc\x09\x03").unwrap(), b"abcabcabc");
        // The same with a two-byte and a four-byte offset.
        assert_eq!(unpacked(b"\x09\x08abc\x16\x03\x00").unwrap(), b"abcabcabc");
        assert_eq!(unpacked(b"\x09\x08abc\x17\x03\x00\x00\x00").unwrap(), b"abcabcabc");
        // "abcabca", a literal "x", and 5 bytes from the last offset again.
        assert_eq!(unpacked(b"\x0d\x08abc\x01\x03\x00x\x05\x00").unwrap(), b"abcabcaxcaxca");
        let long = [b"\xc8\x01\xf0\xc7".as_slice(), &[7; 200]].concat();
        assert_eq!(unpacked(&long).unwrap(), [7; 200]);
    }

    #[test]
    fn the_snapshot_of_a_group_with_nothing_in_it_is_empty() {
        // Of nats-server 2.15.1, before the first stream.
        let peers = b"\x03\0\0\0\x03\0\0\0a2ypH08z6sTSufIuv9wpGRmY\0\0";
        let head = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0];
        let checksum = [0x11, 0x60, 0xd2, 0x29, 0x35, 0x9c, 0x58, 0x3a];
        let whole = [head.as_slice(), peers, &checksum].concat();
        assert_eq!(unpack_group_snapshot(&whole).unwrap().as_slice(), b"");
        assert!(unpack_group_snapshot(&whole[..whole.len() - 1]).is_none());
        assert!(unpack_group_snapshot(&[whole.as_slice(), b"x"].concat()).is_none());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let blocks: [&[u8]; 8] = [
            b"",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x04\x08abc",
            b"\x02\x08abc",
            b"\x09\x08abc\x09\x04",
            b"\x09\x08abc\x09",
            b"\x07\x05\x00",
            b"\xff\xff\xff\xff\x7f\x00a",
        ];
        for block in blocks {
            assert_eq!(unpacked(block), None, "{block:?}");
        }
    }
}
