//! What readers are shown: the records of one moment, or nothing.

use super::tables::Rows;
use super::{Seat, State};
use crate::domain::{Scan, View, Visit};
use crate::error::StoreError;
use crate::record::{Endpoint, RecordBytes, RecordId, SignPub};

impl State {
    /// A record's bytes.
    pub(in super::super) fn bytes(&self, id: &RecordId) -> Option<&RecordBytes> {
        self.records.get(id).map(|held| &held.bytes)
    }

    /// All records behind one, or all, as they are now, settled or not.
    pub(in super::super) fn behind(
        &self,
        last: Option<&RecordId>,
    ) -> impl Iterator<Item = (&RecordId, &RecordBytes)> {
        self.records.behind(last).map(|(id, held)| (id, &held.bytes))
    }

    /// The rows of a scan.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while the records are not those of one moment.
    pub(in super::super) fn select<'s>(
        &'s self,
        scan: Scan<'s>,
    ) -> Result<Rows<'s, RecordBytes>, StoreError> {
        self.readable()?;
        if let Scan::MembershipsOf(endpoint) = scan {
            return Ok(Box::new(self.memberships_of(endpoint)));
        }
        Ok(Box::new(self.records.select(scan).map(|(id, held)| (id, &held.bytes))))
    }

    fn memberships_of<'s>(
        &'s self,
        endpoint: &'s Endpoint,
    ) -> impl Iterator<Item = (&'s RecordId, &'s RecordBytes)> {
        let seats = self.seats.range(Seat { endpoint: *endpoint, room: None }..);
        let rooms = seats.take_while(|seat| seat.endpoint == *endpoint).filter_map(|seat| seat.room.clone());
        rooms.filter_map(|room| {
            let (id, held) = self.records.get_key_value(&RecordId::Member(room, *endpoint))?;
            Some((id, &held.bytes))
        })
    }

    fn readable(&self) -> Result<(), StoreError> {
        if self.is_readable() {
            return Ok(());
        }
        Err(StoreError::Unavailable { why: "the log is being read" })
    }

    /// A record as it is shown.
    ///
    /// # Errors
    /// As [`State::select`].
    pub(in super::super) fn shown(&self, id: &RecordId) -> Result<Option<&RecordBytes>, StoreError> {
        self.readable()?;
        Ok(self.records.get(id).map(|held| &held.bytes))
    }
}

impl View for State {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        Ok(self.shown(id)?.cloned())
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (id, bytes) in self.select(scan)? {
            if visit(id, bytes)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn is_active_user(&self, key: &SignPub) -> Option<bool> {
        let held = self.records.get(&RecordId::User(*key));
        Some(self.is_readable() && held.is_some_and(|held| held.is_active_user))
    }
}
