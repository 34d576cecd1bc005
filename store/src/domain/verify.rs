//! Reading everything back.

use std::ops::ControlFlow;

use unibus_keyfile::digest::{StateDigest, StateHasher};

use super::{Scan, View, decode, read};
use crate::{
    error::StoreError,
    record::{Endpoint, MemberRole, Record, RoomId},
    store::{Census, Position, VerifyReport},
};

/// Reads and decodes every record, recomputes the digest from nothing, and holds it against `position`.
///
/// # Errors
/// [`StoreError::CorruptRecord`], [`StoreError::Tampered`], and what keeps the view from reading.
pub fn verify(view: &dyn View, hasher: &StateHasher, position: Position) -> Result<VerifyReport, StoreError> {
    let (mut digest, mut census, mut dangling) = (StateDigest::EMPTY, Census::default(), 0_u64);
    view.scan(Scan::All, &mut |id, bytes| {
        let record = decode(id, bytes)?;
        digest.add(&hasher.hash(bytes.as_bytes()));
        census.add(id.kind(), 1);
        if is_dangling(view, &record)? {
            dangling = dangling.saturating_add(1);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if digest != position.digest {
        let what = format!("the records have the digest {digest}, wanted {}", position.digest);
        return Err(StoreError::Tampered { what });
    }
    Ok(VerifyReport { position, census, dangling })
}

fn is_dangling(view: &dyn View, record: &Record) -> Result<bool, StoreError> {
    let has_member = |room: &RoomId, endpoint: &Endpoint| read::member(view, room, endpoint);
    Ok(match record {
        Record::Room(room) => {
            has_member(&room.room_id, &room.owner)?.is_none_or(|member| member.role != MemberRole::Owner)
        }
        Record::Member(member) => match read::room(view, &member.room_id)? {
            Some(room) if room.policy.encrypt => {
                read::room_key(view, &room.room_id, &member.endpoint(), Some(room.key_epoch))?.is_none()
            }
            room => room.is_none(),
        },
        Record::RoomKey(key) => has_member(&key.room_id, &key.endpoint)?.is_none(),
        Record::User(_) | Record::Blob(_) => false,
    })
}
