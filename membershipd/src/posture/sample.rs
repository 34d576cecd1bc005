//! Which values a measurement looks for.

use unibus_store::{
    audit::ValueKind,
    error::StoreError,
    record::{Blob, Record, RecordId, SignPub},
    store::{Census, ExportSink, Nonce, Position, Store},
};

use super::raw::Values;

/// Records whose values are looked for; of a larger store, as many spread over all of it.
const SAMPLED_RECORDS: u64 = 20_000;
/// Blobs that are opened.
const SAMPLED_BLOBS: usize = 64;
/// Bytes of a text at least. A shorter one turns up by chance in some gigabytes of sealed bytes, and would cry wolf.
const SHORTEST_TEXT_BYTES: usize = 8;
/// Names in the folders of a store that say nothing, and that a person may have as a handle.
const PUBLIC_NAMES: [&str; 2] = ["witness", "admin.sock"];

/// Collects the planted values, the real ones, and some blobs to open.
pub(super) fn sample(
    store: &dyn Store,
    planted: &(SignPub, Nonce),
) -> Result<(Values, Vec<Blob>), StoreError> {
    let mut sink = Sample { values: Values::default(), blobs: Vec::new(), every: 1, seen: 0 };
    sink.values.add(ValueKind::PublicKey, planted.0.as_bytes());
    sink.values.add(ValueKind::Nonce, planted.1.as_bytes());
    store.export(&mut sink)?;
    Ok((sink.values, sink.blobs))
}

struct Sample {
    values: Values,
    blobs: Vec<Blob>,
    every: u64,
    seen: u64,
}

impl Sample {
    fn text(&mut self, kind: ValueKind, text: &str) {
        let is_public = PUBLIC_NAMES.iter().any(|name| name.contains(text));
        if text.len() >= SHORTEST_TEXT_BYTES && !is_public {
            self.values.add(kind, text.as_bytes());
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
                self.values.add(ValueKind::PublicKey, user.sign_pub.as_bytes());
            }
            Record::Room(room) => {
                self.text(ValueKind::RoomId, room.room_id.as_str());
                self.text(ValueKind::Subject, room.subject.as_str());
                self.text(ValueKind::Channel, room.channel.as_str());
                self.values.add(ValueKind::Endpoint, room.owner.as_bytes());
            }
            Record::Member(member) => {
                self.values.add(ValueKind::Endpoint, member.endpoint().as_bytes());
                self.values.add(ValueKind::PublicKey, member.sign_pub().as_bytes());
                if let Some(key) = member.kex_pub {
                    self.values.add(ValueKind::PublicKey, key.as_bytes());
                }
            }
            Record::RoomKey(key) => self.values.add(ValueKind::SealedKey, key.sealed.as_bytes()),
            // Not its storage name: that is the name of the sealed file.
            Record::Blob(blob) => {
                self.values.add(ValueKind::BlobDigest, blob.sha256.as_bytes());
                if self.blobs.len() < SAMPLED_BLOBS {
                    self.blobs.push(blob);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use unibus_keyfile::secret::StateKey;
    use unibus_store::{
        memory::MemoryStore,
        record::{Timestamp, User, UserRole},
        store::Actor,
    };

    use super::*;

    async fn sampled(handles: impl Iterator<Item = String>) -> Vec<u8> {
        let store = MemoryStore::new(&StateKey::generate());
        for (number, handle) in handles.enumerate() {
            let mut key = [7; 32];
            key[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
            let key = SignPub::from_bytes(key).unwrap();
            let user = User::new(key, handle.parse().unwrap(), UserRole::Member, Timestamp::MIN);
            store.add_user(Actor::Operator, user).await.unwrap();
        }
        let planted = (SignPub::from_bytes([9; 32]).unwrap(), Nonce::from_bytes(b"planted nonce").unwrap());
        sample(&store, &planted).unwrap().0.into_bytes()
    }

    fn has(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[tokio::test]
    async fn values_of_a_small_store_are_all_looked_for() {
        let bytes = sampled((0..50).map(|number| format!("somebody-{number:03}"))).await;
        assert!(has(&bytes, "planted nonce"));
        assert!((0..50).all(|number| has(&bytes, &format!("somebody-{number:03}"))));
    }

    #[tokio::test]
    async fn texts_that_turn_up_by_chance_or_by_design_are_left_out() {
        let names = ["short", "1234567", "12345678", "admin.sock"].map(str::to_owned);
        let bytes = sampled(names.into_iter()).await;
        assert!(has(&bytes, "12345678") && !has(&bytes, "short") && !has(&bytes, "admin.sock"));
    }
}
