//! Headers: which one sends, and which a stored message may have.

/// The stream must stand at this sequence.
pub(super) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
/// The last message under this subject must stand at this sequence; 0 for none.
pub(super) const EXPECTED_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// It must be this stream.
pub(super) const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// Which batch.
pub(super) const BATCH_ID: &str = "Nats-Batch-Id";
/// The message's number in the batch.
pub(super) const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
/// The batch ends here.
pub(super) const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// Lifetime of the message.
pub(super) const TTL: &str = "Nats-TTL";

/// Those that say more than where an entry stands, by name.
const FOREIGN: [&str; 4] = ["KV-Operation", "Nats-Rollup", TTL, "Nats-Marker-Reason"];

/// The first header that no entry of ours has. A server adds none to a message that it delivers.
pub(super) fn foreign<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let ours = |name: &str| name.starts_with("Nats-Expected-") || name.starts_with("Nats-Batch-");
    let named = |name: &str| FOREIGN.into_iter().find(|foreign| foreign.eq_ignore_ascii_case(name));
    names.into_iter().find(|name| !ours(name)).map(|name| named(name).unwrap_or("other"))
}

/// As [`foreign`], for a header block as a server stores it.
pub(super) fn foreign_in(block: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(block) else { return Some("other") };
    // A status behind the version is not for those who publish.
    let Some(lines) = text.strip_prefix("NATS/1.0\r\n") else { return (!text.is_empty()).then_some("other") };
    let lines = lines.split("\r\n").filter(|line| !line.is_empty());
    foreign(lines.map(|line| line.split_once(':').map_or("", |(name, _)| name)))
}
