//! What `Debug` shows of a record: its kind and a marker, never a name or a key.

use std::{fmt, sync::OnceLock};

use unibus_keyfile::digest::sha256;

/// Writes `Kind#marker`.
///
/// The marker is a hash under a salt that this process drew and never tells: equal things have equal
/// markers within one log, and nobody can try handles or subjects against it afterwards.
pub(crate) fn marker(f: &mut fmt::Formatter<'_>, kind: &str, content: &[u8]) -> fmt::Result {
    static SALT: OnceLock<[u8; 32]> = OnceLock::new();
    let salt = SALT.get_or_init(rand::random);
    let hash = sha256(&[salt, kind.as_bytes(), content]);
    let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    write!(f, "{kind}#{short}")
}
