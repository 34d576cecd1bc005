//! Blobs: where a sealed content lies, and its key.

use std::{fmt, sync::Arc};

use unibus_keyfile::secret::{BlobKey, KEY_BYTES};

use super::{
    BlobHash, DecodeError, FieldError, Kind, Record, RecordBody, RecordBytes, RecordId, StorageName,
    Timestamp,
    cbor::{self, BodyReader, Unknown},
    redact,
};

/// Greatest size of a blob in a record, so that it fits SQLite's integers.
const SIZE_MAX_BYTES: u64 = 9_223_372_036_854_775_807;

/// One blob. Forgetting this record forgets the blob: its key is nowhere else.
#[derive(Clone)]
#[non_exhaustive]
pub struct Blob {
    /// SHA-256 of the content; the record's identity.
    pub sha256: BlobHash,
    size_bytes: u64,
    /// The key that seals the content.
    pub key: Arc<BlobKey>,
    /// The name under which the sealed content is stored.
    pub storage_name: StorageName,
    /// When the blob was stored.
    pub created_at: Timestamp,
    unknown: Unknown,
}

impl Blob {
    /// The record of a stored blob.
    ///
    /// # Errors
    /// [`FieldError::OutOfRange`] for a size of 2^63 bytes and more.
    pub fn new(
        sha256: BlobHash,
        size_bytes: u64,
        key: Arc<BlobKey>,
        storage_name: StorageName,
        created_at: Timestamp,
    ) -> Result<Self, FieldError> {
        let size_bytes = in_range(size_bytes)?;
        Ok(Self { sha256, size_bytes, key, storage_name, created_at, unknown: Unknown::default() })
    }

    /// Bytes of the content.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        RecordBytes::of(self)
    }
}

/// Fills the key where it stays, without a copy on the stack.
fn blob_key(bytes: &[u8]) -> Result<Arc<BlobKey>, cbor::Refused> {
    if bytes.len() != KEY_BYTES {
        return Err(FieldError::OutOfRange { field: "key" }.into());
    }
    Ok(Arc::new(BlobKey::init_with(|key| key.copy_from_slice(bytes))))
}

fn in_range(size: u64) -> Result<u64, FieldError> {
    if size <= SIZE_MAX_BYTES { Ok(size) } else { Err(FieldError::OutOfRange { field: "size" }) }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }
}

impl Eq for Blob {}

impl RecordBody for Blob {
    const KIND: Kind = Kind::Blob;

    fn id(&self) -> RecordId {
        RecordId::Blob(self.sha256)
    }

    fn body_max_bytes(&self) -> usize {
        self.unknown.len_bytes().saturating_add(128)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        cbor::write_body(out, 4, &self.unknown, |fields| {
            fields.u8(0)?.u64(self.size_bytes)?;
            fields.u8(1)?.bytes(self.key.expose_to_record())?;
            fields.u8(2)?.bytes(self.storage_name.as_bytes())?;
            fields.u8(3)?.i64(self.created_at.micros())?.ok()
        });
    }

    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let RecordId::Blob(sha256) = id else {
            return Err(DecodeError::Identity { kind: Self::KIND });
        };
        let reader = BodyReader::new(Self::KIND, body, 4)?;
        Ok(Self {
            sha256,
            size_bytes: reader.field(0, "size", |d| Ok(in_range(d.u64()?)?))?,
            key: reader.field(1, "key", |d| blob_key(d.bytes()?))?,
            storage_name: StorageName::from_bytes(reader.field(2, "storage_name", cbor::array)?),
            created_at: reader.field(3, "created_at", |d| Ok(Timestamp::from_micros(d.i64()?)?))?,
            unknown: reader.into_unknown(),
        })
    }
}

impl From<Blob> for Record {
    fn from(blob: Blob) -> Self {
        Self::Blob(blob)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "Blob", self.sha256.as_bytes())
    }
}
