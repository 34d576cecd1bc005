//! Text form of keys: bech32m with a readable prefix (BIP 350; SPEC keyfile, section 3).

use bech32::{Hrp, primitives::checksum::Checksum, primitives::decode::UncheckedHrpstring};
use zeroize::Zeroizing;

/// Prefix of a cluster pin.
pub const PIN_PREFIX: &str = "ubc";
/// Prefix of a node key line.
pub const NODE_PREFIX: &str = "UNIBUS-NODE-KEY-";
/// Prefix of an operator key line.
pub const OPERATOR_PREFIX: &str = "UNIBUS-OPERATOR-KEY-";
/// Prefix of an operator key line under a passphrase.
pub const OPERATOR_LOCKED_PREFIX: &str = "UNIBUS-OPERATOR-KEY-LOCKED-";
/// Prefix of a recovery key line.
pub const RECOVERY_PREFIX: &str = "UNIBUS-RECOVERY-KEY-";

/// Longest payload of a key line, in bytes.
pub const MAX_PAYLOAD: usize = 256;

/// Encodes a payload as lower-case text.
#[must_use]
pub fn encode_lower(prefix: &str, payload: &[u8]) -> String {
    let Ok(hrp) = Hrp::parse(prefix) else { return String::new() };
    bech32::encode_lower::<bech32::Bech32m>(hrp, payload).unwrap_or_default()
}

/// Encodes a secret payload as upper-case text.
#[must_use]
pub fn encode_secret(prefix: &str, payload: &[u8]) -> Zeroizing<String> {
    let Ok(hrp) = Hrp::parse(prefix) else { return Zeroizing::new(String::new()) };
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + payload.len() * 2 + 16));
    if bech32::encode_upper_to_fmt::<bech32::Bech32m, _>(&mut *text, hrp, payload).is_err() {
        text.clear();
    }
    text
}

/// Decodes text with this prefix; `None` when prefix, alphabet, length or checksum do not fit.
#[must_use]
pub fn decode(prefix: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() > prefix.len() + MAX_PAYLOAD * 2 {
        return None;
    }
    let unchecked = UncheckedHrpstring::new(text).ok()?;
    if !unchecked.hrp().as_str().eq_ignore_ascii_case(prefix) {
        return None;
    }
    let checked = unchecked.validate_and_remove_checksum::<bech32::Bech32m>().ok()?;
    let mut payload = Zeroizing::new(Vec::with_capacity(MAX_PAYLOAD));
    if checked.byte_iter().count() > MAX_PAYLOAD {
        return None;
    }
    payload.extend(checked.byte_iter());
    // One payload has one text: padding bits must be zero, and the text must be as this module writes it.
    let again = if prefix.bytes().any(|b| b.is_ascii_uppercase()) {
        encode_secret(prefix, &payload)
    } else {
        Zeroizing::new(encode_lower(prefix, &payload))
    };
    (again.as_str() == text).then_some(payload)
}

/// Whether the line starts like a key line with this prefix.
#[must_use]
pub fn has_prefix(prefix: &str, line: &str) -> bool {
    line.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('1'))
}

const _: () = assert!(<bech32::Bech32m as Checksum>::CODE_LENGTH >= MAX_PAYLOAD * 2);
