//! Adding and revoking users.

use std::ops::ControlFlow;

use super::{Actor, Change, Scan, View, create, decode, put, read};
use crate::{
    error::StoreError,
    record::{Kind, Record, SignPub, Timestamp, User, UserStatus},
};

/// The signer's own record, if it is an active user.
pub(super) fn active_user(view: &dyn View, signer: &SignPub) -> Result<User, StoreError> {
    read::user(view, signer)?.filter(User::is_active).ok_or(StoreError::NotAuthorized)
}

fn need_admin(view: &dyn View, actor: &Actor) -> Result<(), StoreError> {
    match actor {
        Actor::Operator => Ok(()),
        Actor::Signer(key) if active_user(view, key)?.is_active_admin() => Ok(()),
        Actor::Signer(_) => Err(StoreError::NotAuthorized),
    }
}

/// Adds an active user. Asked by the operator or an active admin.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::Invalid`] for a user that is not active;
/// [`StoreError::AlreadyExists`], also for a revoked user: it stays as it is, role and status included.
pub fn add_user(view: &dyn View, actor: &Actor, user: &User) -> Result<Vec<Change>, StoreError> {
    need_admin(view, actor)?;
    if !user.is_active() {
        return Err(StoreError::Invalid { what: "a new user is active" });
    }
    Ok(vec![create(view, &Record::User(user.clone()))?])
}

/// Revokes an active user; the record and the memberships stay. Asked by the operator or an active admin.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::NotFound`] for an unknown or revoked user;
/// [`StoreError::LastAdmin`] if a signer would leave the store without an active admin.
pub fn revoke_user(
    view: &dyn View,
    actor: &Actor,
    key: &SignPub,
    now: Timestamp,
) -> Result<Vec<Change>, StoreError> {
    need_admin(view, actor)?;
    let found = read::user(view, key)?.filter(User::is_active);
    let mut user = found.ok_or(StoreError::NotFound { kind: Kind::User })?;
    if user.is_active_admin() && *actor != Actor::Operator && !has_other_admin(view, key)? {
        return Err(StoreError::LastAdmin);
    }
    user.status = UserStatus::Revoked { at: Some(now) };
    Ok(vec![put(view, &Record::User(user))?])
}

/// Stops at the first other admin. Only the revocation of an admin asks, so it may walk all users.
fn has_other_admin(view: &dyn View, key: &SignPub) -> Result<bool, StoreError> {
    let mut found = false;
    view.scan(Scan::Kind(Kind::User), &mut |id, bytes| {
        found = matches!(decode(id, bytes)?, Record::User(user) if user.is_active_admin() && user.sign_pub != *key);
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}
