//! PEM armour (RFC 7468, strict) of the documents that people carry around: requests and recovery recipients.

use pem_rfc7468::LineEnding;

use crate::error::DecodeError;

/// Label of an enrolment request.
pub const REQUEST_LABEL: &str = "UNIBUS NODE REQUEST";
/// Label of a further recovery recipient.
pub const RECOVERY_LABEL: &str = "UNIBUS RECOVERY RECIPIENT";
/// Largest armoured text, in bytes.
pub const MAX_ARMOUR_BYTES: usize = 16 * 1024;

/// Puts bytes into armour.
#[must_use]
pub fn encode(label: &str, bytes: &[u8]) -> String {
    // The labels above are valid, and writing to memory cannot fail.
    pem_rfc7468::encode_string(label, LineEnding::LF, bytes).unwrap_or_default()
}

/// Takes bytes out of their armour. White space around it is allowed; inside, each value has one text.
///
/// # Errors
/// [`DecodeError::TooLarge`], [`DecodeError::Magic`] for another label, [`DecodeError::Field`] when it is not
/// armour, [`DecodeError::NotCanonical`] when it is armour in another form than [`encode`] gives.
pub fn decode(label: &'static str, text: &str) -> Result<Vec<u8>, DecodeError> {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    if text.len() > MAX_ARMOUR_BYTES {
        let (found, limit) = (number(text.len()), number(MAX_ARMOUR_BYTES));
        return Err(DecodeError::TooLarge { what: "armour", found, limit });
    }
    let text = text.trim();
    let (found, bytes) =
        pem_rfc7468::decode_vec(text.as_bytes()).map_err(|_| DecodeError::Field("armour"))?;
    if found != label {
        return Err(DecodeError::Magic { expected: label });
    }
    if encode(label, &bytes).trim() != text {
        return Err(DecodeError::NotCanonical);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armour_comes_off_as_it_was_put_on_only() {
        let text = encode(REQUEST_LABEL, &[7; 100]);
        assert_eq!(decode(REQUEST_LABEL, &format!("\n {text}\n")), Ok(vec![7; 100]));
        assert_eq!(decode(RECOVERY_LABEL, &text), Err(DecodeError::Magic { expected: RECOVERY_LABEL }));
        for bad in [
            "",
            "x",
            &text[1..],
            &text[..text.len() - 3],
            &text.replace('\n', "\r\n"),
            &text.replace("Bw", "Bx"),
        ] {
            assert!(decode(REQUEST_LABEL, bad).is_err(), "{bad:?}");
        }
        let huge = format!("{text}{}", " ".repeat(MAX_ARMOUR_BYTES));
        assert!(matches!(decode(REQUEST_LABEL, &huge), Err(DecodeError::TooLarge { .. })));
    }
}
