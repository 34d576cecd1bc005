//! The stream of the sealed log: its name, its settings, and what a server may not have changed about them
//! (SPEC store, section 8.1).

/// Name of the stream.
pub const STREAM: &str = "KV_UNIBUS_control";
/// What every subject of the stream begins with; the entry name follows.
pub(super) const SUBJECT_PREFIX: &str = "$KV.UNIBUS_control.";
