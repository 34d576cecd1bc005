//! Recording blobs.

use super::{Actor, Change, View, create, users::active_user};
use crate::{
    error::StoreError,
    record::{Blob, Record},
};

/// Records a blob whose sealed content is stored already. Asked by the operator or an active user.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::AlreadyExists`], and then the earlier key and place stay.
pub fn put_blob(view: &dyn View, actor: &Actor, blob: &Blob) -> Result<Vec<Change>, StoreError> {
    if let Actor::Signer(signer) = actor {
        active_user(view, signer)?;
    }
    Ok(vec![create(view, &Record::Blob(blob.clone()))?])
}
