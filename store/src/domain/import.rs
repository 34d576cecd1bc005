//! What an import checks of each record.

use crate::{
    error::StoreError,
    record::{Record, RecordBytes, RecordId},
};

/// Checks records one by one as they come in: each decodes, and each comes after the one before in canonical
/// order, so that none comes twice.
#[derive(Debug, Default)]
pub struct ImportOrder {
    count: u64,
    last: Option<RecordId>,
}

impl ImportOrder {
    /// Checks the next record and gives its identity.
    ///
    /// # Errors
    /// [`StoreError::Decode`]; [`StoreError::Invalid`] if it is out of order.
    pub fn accept(&mut self, bytes: &RecordBytes) -> Result<RecordId, StoreError> {
        let index = self.count;
        let record =
            Record::decode(bytes.as_bytes()).map_err(|source| StoreError::Decode { index, source })?;
        let id = record.id();
        if self.last.as_ref().is_some_and(|last| *last >= id) {
            return Err(StoreError::Invalid { what: "imported records come in canonical order, each once" });
        }
        self.last = Some(id.clone());
        self.count = index.saturating_add(1);
        Ok(id)
    }

    /// How many records were accepted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}
