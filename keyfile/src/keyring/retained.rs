//! Keys of destroyed epochs that recovery recipients keep (SPEC keyfile, section 5.2).

use super::{Contents, Keyring, Secrets, secrets::same};
use crate::{
    aad, derive,
    error::{DocumentError, UnlockError},
    id::{Epoch, Fingerprint},
    nodeset::Nodeset,
    operator_key::RecoveryKey,
    secret::{EpochKey, KEY_BYTES},
    suite::{ENCAPSULATION_BYTES, SUITE_1, TAG_BYTES},
};

/// First part of the `info` of a retained wrap.
pub const RETAINED_LABEL: &[u8] = b"unibus/keyring/retained/v1";
/// Bytes of a retained wrap.
pub const RETAINED_WRAP_BYTES: usize = ENCAPSULATION_BYTES + KEY_BYTES + TAG_BYTES;

/// The key of a destroyed epoch, wrapped to a recovery recipient. No node can make it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RetainedWrap {
    pub(super) epoch: Epoch,
    pub(super) recipient: [u8; 32],
    pub(super) wrapped: Vec<u8>,
}

impl RetainedWrap {
    /// What the list is ordered by.
    pub(super) const fn place(&self) -> (Epoch, [u8; 32]) {
        (self.epoch, self.recipient)
    }
}

impl Keyring {
    /// Opens the keys of destroyed epochs that were wrapped to this recovery key, by number.
    ///
    /// None is there when no epoch was destroyed with its key retained.
    ///
    /// # Errors
    /// [`UnlockError::NotARecipient`] when all were wrapped to others; [`UnlockError::Unauthentic`] when a wrap was
    /// changed; [`UnlockError::Contents`] and [`UnlockError::Commitment`] when it holds another key than the
    /// keyring commits to.
    pub fn retained(&self, key: &dyn RecoveryKey) -> Result<Vec<(Epoch, EpochKey)>, UnlockError> {
        let own = key.wrapping().public().id();
        let wraps = &self.contents.retained;
        let ours = wraps.iter().filter(|wrap| wrap.recipient == *own);
        let found: Vec<_> = ours.map(|wrap| open(wrap, &self.contents, key)).collect::<Result<_, _>>()?;
        if found.is_empty() && !wraps.is_empty() {
            let mut expected: Vec<_> = wraps.iter().map(|wrap| Fingerprint::of(&wrap.recipient)).collect();
            expected.sort_unstable();
            expected.dedup();
            return Err(UnlockError::NotARecipient { expected, found: vec![Fingerprint::of(own)] });
        }
        Ok(found)
    }
}

fn open(
    wrap: &RetainedWrap,
    contents: &Contents,
    key: &dyn RecoveryKey,
) -> Result<(Epoch, EpochKey), UnlockError> {
    let info = info(contents, wrap.epoch, &wrap.recipient);
    let bytes = key
        .wrapping()
        .unwrap(&info, &wrap.wrapped)
        .ok_or_else(|| UnlockError::Unauthentic { recipient: Fingerprint::of(&wrap.recipient) })?;
    let bytes = <&[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| UnlockError::Contents)?;
    let opened = EpochKey::init_with(|out| out.copy_from_slice(bytes));
    let entry = contents.epochs.iter().find(|entry| entry.number == wrap.epoch);
    let commitment = &entry.ok_or(UnlockError::Contents)?.commitment;
    if !same(&derive::epoch_commitment(&opened, &contents.cluster), commitment) {
        return Err(UnlockError::Commitment { epoch: wrap.epoch });
    }
    Ok((wrap.epoch, opened))
}

/// Adds the keys of these epochs, wrapped to the recovery recipients alone.
pub(super) fn wrap(
    contents: &mut Contents,
    epochs: &[Epoch],
    nodeset: &Nodeset,
    secrets: &Secrets,
) -> Result<(), DocumentError> {
    for number in epochs {
        let gone = || DocumentError::Invalid(format!("the key of epoch {number} is not at hand"));
        let key = secrets.epoch(*number).ok_or_else(gone)?;
        for recovery in nodeset.recovery() {
            let recipient = *recovery.wrapping_public.id();
            let wrapped = recovery
                .wrapping_public
                .wrap(&info(contents, *number, &recipient), key.expose())
                .map_err(|source| DocumentError::Decode { document: "nodeset", source })?;
            contents.retained.push(RetainedWrap { epoch: *number, recipient, wrapped });
        }
    }
    contents.retained.sort_by_key(RetainedWrap::place);
    Ok(())
}

/// Without the keyring's version: later versions carry the wrap as it is.
fn info(contents: &Contents, epoch: Epoch, recipient: &[u8; 32]) -> Vec<u8> {
    aad::parts(&[
        RETAINED_LABEL,
        &SUITE_1.to_be_bytes(),
        contents.cluster.as_bytes(),
        contents.lineage.as_bytes(),
        &epoch.get().to_be_bytes(),
        recipient,
    ])
}
