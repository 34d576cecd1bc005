//! The bytes of a sealed blob of version 1, as far as they are not its chunks (SPEC store, section 7).

use unibus_keyfile::aad;
use unibus_keyfile::error::DecodeError;
use unibus_keyfile::stream::{CHUNK_BYTES, TAG_BYTES};

use crate::record::StorageName;

/// First bytes of a sealed blob (SPEC store, section 7.1).
pub const MAGIC: [u8; 6] = *b"UBBLOB";

/// The version that is written (SPEC store, section 7.1).
pub const VERSION_1: u16 = 1;

/// Bytes before the first chunk (SPEC store, section 7.1).
pub const HEADER_BYTES: usize = 8;

/// Least bytes of padded content (SPEC store, section 7.2).
pub const MIN_PADDED_BYTES: u64 = 256;

/// Label of the AAD of every chunk (SPEC store, section 7.3).
pub const CHUNK_LABEL: &[u8] = b"unibus/blob/chunk/v1";

/// The header's bytes.
#[must_use]
pub fn header() -> [u8; HEADER_BYTES] {
    let ([m0, m1, m2, m3, m4, m5], [v0, v1]) = (MAGIC, VERSION_1.to_be_bytes());
    [m0, m1, m2, m3, m4, m5, v0, v1]
}

/// Checks a header.
///
/// # Errors
/// [`DecodeError::Magic`] and [`DecodeError::Version`].
pub fn check_header(header: [u8; HEADER_BYTES]) -> Result<(), DecodeError> {
    let [m0, m1, m2, m3, m4, m5, v0, v1] = header;
    if [m0, m1, m2, m3, m4, m5] != MAGIC {
        return Err(DecodeError::Magic { expected: "sealed blob" });
    }
    let version = u16::from_be_bytes([v0, v1]);
    if version != VERSION_1 {
        return Err(DecodeError::Version { found: version });
    }
    Ok(())
}

/// What every chunk is bound to.
#[must_use]
pub fn chunk_aad(name: &StorageName) -> Vec<u8> {
    aad::parts(&[CHUNK_LABEL, &header(), name.as_bytes()])
}

/// Bytes to which content of `size` bytes is padded: its four highest bits are kept, rounded up. `None` when there is
/// no such number.
#[must_use]
pub fn padded_bytes(size: u64) -> Option<u64> {
    let size = size.max(MIN_PADDED_BYTES);
    let bits = u64::BITS.saturating_sub(size.leading_zeros());
    size.checked_next_multiple_of(1_u64.checked_shl(bits.saturating_sub(4))?)
}

/// Bytes of the file that holds content of `size` bytes; `None` when there is no such file.
#[must_use]
pub fn file_bytes(size: u64) -> Option<u64> {
    let padded = padded_bytes(size)?;
    let wide = |number: usize| u64::try_from(number).ok();
    let tags = padded.div_ceil(wide(CHUNK_BYTES)?).checked_mul(wide(TAG_BYTES)?)?;
    padded.checked_add(tags)?.checked_add(wide(HEADER_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_those_of_the_specification() {
        let spec = include_str!("../../SPEC.md");
        let section = spec.split("\n## ").find(|section| section.starts_with("7 Sealed blob")).unwrap();
        assert!(section.contains(&format!("| `VERSION_1` | {VERSION_1} |")));
        assert!(section.contains(&format!("| `HEADER_BYTES` | {HEADER_BYTES} |")));
        assert!(section.contains(&format!("| `MIN_PADDED_BYTES` | {MIN_PADDED_BYTES} |")));
        assert!(section.contains("| magic | `UBBLOB` |"));
        for label in [CHUNK_LABEL, unibus_keyfile::derive::BLOB_CHUNKS] {
            assert!(section.contains(&format!("`{}`", std::str::from_utf8(label).unwrap())));
        }
    }

    #[test]
    fn sizes_are_padded_to_four_bits() {
        let padded: Vec<_> = [0, 1, 256, 257, 288, 289, 65_536, 65_537, 1 << 40].map(padded_bytes).to_vec();
        let wanted = [256, 256, 256, 288, 288, 320, 65_536, 73_728, 1 << 40].map(Some).to_vec();
        assert_eq!(padded, wanted);
        assert_eq!(padded_bytes(u64::MAX), None);
        assert_eq!((file_bytes(0), file_bytes(65_537)), (Some(8 + 256 + 16), Some(8 + 73_728 + 32)));
    }

    #[test]
    fn a_header_of_another_format_or_version_is_refused() {
        assert_eq!(check_header(header()), Ok(()));
        assert_eq!(check_header(*b"UBSNAP\0\x01"), Err(DecodeError::Magic { expected: "sealed blob" }));
        assert_eq!(check_header(*b"UBBLOB\0\x02"), Err(DecodeError::Version { found: 2 }));
    }
}
