use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

/// Characters of a `Content-Digest` at most; room for a few other algorithms beside ours.
const MAX_DIGEST_CHARS: usize = 1024;

/// Why a `Content-Digest` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Longer than any honest one.
    #[error("`Content-Digest` has {found} bytes, at most {MAX_DIGEST_CHARS} are taken")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not a dictionary of structured fields.
    #[error("`Content-Digest` is not a structured dictionary")]
    Syntax,
    /// Other algorithms, and not ours.
    #[error("`Content-Digest` has no `sha-256`")]
    Algorithm,
    /// Not 32 bytes.
    #[error("`sha-256` in `Content-Digest` is not a byte sequence of 32 bytes")]
    Length,
}

/// Reads the SHA-256 out of a `Content-Digest` field (RFC 9530). Other algorithms beside it are ignored.
///
/// # Errors
/// [`DigestError`]: too long, not a dictionary, no `sha-256`, not 32 bytes.
pub fn parse_content_digest(field: &str) -> Result<[u8; 32], DigestError> {
    if field.len() > MAX_DIGEST_CHARS {
        return Err(DigestError::TooLong { found: field.len() });
    }
    let dictionary: Dictionary = Parser::new(field).parse().map_err(|_| DigestError::Syntax)?;
    match dictionary.get("sha-256") {
        None => Err(DigestError::Algorithm),
        Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => {
            bytes.as_slice().try_into().map_err(|_| DigestError::Length)
        }
        Some(_) => Err(DigestError::Length),
    }
}

/// Writes the `Content-Digest` field of a SHA-256.
#[must_use]
pub fn format_content_digest(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", data_encoding::BASE64.encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_survives_its_text() {
        let digest = [0xab; 32];
        assert_eq!(parse_content_digest(&format_content_digest(&digest)), Ok(digest));
    }

    #[test]
    fn example_of_rfc_9530_is_read_beside_another_algorithm() {
        // RFC 9530, section 2: SHA-256 of {"hello": "world"} with a line feed.
        let field = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:, md5=:Sd/dVLAcvNLSq16eXua5uQ==:";
        let digest = parse_content_digest(field).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&digest),
            "44aff4ab2d7c3250525675a08f0cfa9591168cffe51791c5f5bbc417c15a6c38"
        );
    }

    #[test]
    fn each_defect_has_its_error() {
        assert_eq!(parse_content_digest(&"a".repeat(1025)), Err(DigestError::TooLong { found: 1025 }));
        assert_eq!(parse_content_digest("sha-256="), Err(DigestError::Syntax));
        assert_eq!(parse_content_digest("sha-256=:AA=="), Err(DigestError::Syntax));
        assert_eq!(parse_content_digest("sha-512=:AAAA:"), Err(DigestError::Algorithm));
        assert_eq!(parse_content_digest(""), Err(DigestError::Algorithm));
        assert_eq!(parse_content_digest("sha-256=:AAAA:"), Err(DigestError::Length));
        assert_eq!(parse_content_digest("sha-256=token"), Err(DigestError::Length));
        assert_eq!(parse_content_digest("sha-256"), Err(DigestError::Length));
    }
}
