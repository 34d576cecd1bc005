//! Which values a measurement looks for.

use unibus_store::{
    audit::{Canaries, ValueKind},
    error::StoreError,
    record::{Record, RecordId, SignPub},
    store::{Census, ExportSink, Nonce, Position, Store},
};

/// Records whose values are looked for; of a larger store, as many spread over all of it.
const SAMPLED_RECORDS: u64 = 20_000;
/// Names in the folders of a store that say nothing, and that a person may have as a handle.
const PUBLIC_NAMES: [&str; 2] = ["witness", "admin.sock"];

/// Collects the planted values and the real ones.
pub(super) fn canaries(store: &dyn Store, planted: &(SignPub, Nonce)) -> Result<Canaries, StoreError> {
    let mut sink = Sample { canaries: Canaries::with_capacity(0), every: 1, seen: 0 };
    sink.canaries.add(ValueKind::PublicKey, planted.0.as_bytes());
    sink.canaries.add(ValueKind::Nonce, planted.1.as_bytes());
    store.export(&mut sink)?;
    Ok(sink.canaries)
}

struct Sample {
    canaries: Canaries,
    every: u64,
    seen: u64,
}

impl Sample {
    fn text(&mut self, kind: ValueKind, text: &str) {
        if !PUBLIC_NAMES.iter().any(|name| name.contains(text)) {
            self.canaries.add(kind, text.as_bytes());
        }
    }
}

impl ExportSink for Sample {
    fn begin(&mut self, _: &Position, census: &Census) -> Result<(), StoreError> {
        self.every = census.total().div_ceil(SAMPLED_RECORDS).max(1);
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        self.seen = self.seen.saturating_add(1);
        if !self.seen.is_multiple_of(self.every) {
            return Ok(());
        }
        let kind = id.kind();
        match Record::decode(bytes).map_err(|source| StoreError::CorruptRecord { kind, source })? {
            Record::User(user) => {
                self.text(ValueKind::Handle, user.handle.as_str());
                self.canaries.add(ValueKind::PublicKey, user.sign_pub.as_bytes());
            }
            Record::Room(room) => {
                self.text(ValueKind::RoomId, room.room_id.as_str());
                self.text(ValueKind::Subject, room.subject.as_str());
                self.text(ValueKind::Channel, room.channel.as_str());
                self.canaries.add(ValueKind::Endpoint, room.owner.as_bytes());
            }
            Record::Member(member) => {
                self.canaries.add(ValueKind::Endpoint, member.endpoint().as_bytes());
                self.canaries.add(ValueKind::PublicKey, member.sign_pub().as_bytes());
                if let Some(key) = member.kex_pub {
                    self.canaries.add(ValueKind::PublicKey, key.as_bytes());
                }
            }
            Record::RoomKey(key) => self.canaries.add(ValueKind::SealedKey, key.sealed.as_bytes()),
            // Not its storage name: that is the name of the sealed file.
            Record::Blob(blob) => self.canaries.add(ValueKind::BlobDigest, blob.sha256.as_bytes()),
            _ => {}
        }
        Ok(())
    }
}
