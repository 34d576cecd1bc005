//! The steps of a keyring's epochs: staged, activated, aborted, destroyed (SPEC keyfile, section 5.2).

use super::{CarriedOver, Contents, EpochEntry, EpochState, Keyring, MAX_EPOCHS, Secrets, retained};
use crate::{
    derive,
    error::DocumentError,
    id::{Epoch, UnixTime},
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    secret::EpochKey,
};

impl Keyring {
    /// Makes the next version with a fresh epoch, staged: everybody gets its key, nobody seals with it yet.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when an epoch is staged already, no epoch number is left, or these are not the
    /// keyring's secrets; [`DocumentError::Signer`] and [`DocumentError::OldNodeset`] as [`Keyring::rewrap`].
    pub fn stage(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
        now: UnixTime,
    ) -> Result<(Self, Secrets), DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        if let Some(staged) = self.staged() {
            let number = staged.number;
            return refuse(format!("epoch {number} is staged already: activate or abort it first"));
        }
        let number = next_number(&contents, None)?;
        let key = EpochKey::generate();
        let staged = fresh(number, EpochState::Staged, &key, &contents, now);
        contents.epochs.push(staged);
        let secrets = secrets.reissue(&contents, Some((number, key)), None);
        Self::issue(contents, nodeset, own, secrets)
    }

    /// Makes the next version with the staged epoch as the primary one; the primary one before is retired.
    ///
    /// Whether every node has the staged key is not known here: the caller holds the acknowledgements against it.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when no epoch is staged, or these are not the keyring's secrets;
    /// [`DocumentError::Signer`] and [`DocumentError::OldNodeset`] as [`Keyring::rewrap`].
    pub fn activate(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<(Self, Secrets), DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        self.must_be_staged()?;
        for entry in &mut contents.epochs {
            entry.state = match entry.state {
                EpochState::Primary => EpochState::Retired,
                EpochState::Staged => EpochState::Primary,
                other => other,
            };
        }
        let secrets = secrets.reissue(&contents, None, None);
        Self::issue(contents, nodeset, own, secrets)
    }

    /// Makes the next version with the staged epoch destroyed: it never sealed anything.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when no epoch is staged, or these are not the keyring's secrets;
    /// [`DocumentError::Signer`] and [`DocumentError::OldNodeset`] as [`Keyring::rewrap`].
    pub fn abort(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<(Self, Secrets), DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        self.must_be_staged()?;
        for entry in contents.epochs.iter_mut().filter(|e| e.state == EpochState::Staged) {
            entry.state = EpochState::Destroyed;
        }
        let secrets = secrets.reissue(&contents, None, None);
        Self::issue(contents, nodeset, own, secrets)
    }

    /// Makes the next version with every retired epoch destroyed: no node can open what is left under it.
    ///
    /// With `retain` each of their keys is wrapped once more, to the recovery recipients of this nodeset alone;
    /// later versions carry these wraps as they are. Without it nothing remains of the keys.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when no epoch is retired, one is staged, or these are not the keyring's secrets;
    /// [`DocumentError::Signer`] and [`DocumentError::OldNodeset`] as [`Keyring::rewrap`].
    pub fn destroy(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
        retain: bool,
    ) -> Result<(Self, Secrets), DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        if let Some(staged) = self.staged() {
            return refuse(format!("epoch {} is staged: activate or abort it first", staged.number));
        }
        let retired: Vec<Epoch> = self.retired().map(|entry| entry.number).collect();
        if retired.is_empty() {
            return refuse("no epoch is retired".into());
        }
        if retain {
            retained::wrap(&mut contents, &retired, nodeset, secrets)?;
        }
        for entry in contents.epochs.iter_mut().filter(|e| e.state == EpochState::Retired) {
            entry.state = EpochState::Destroyed;
            entry.retained = retain;
        }
        let secrets = secrets.reissue(&contents, None, None);
        Self::issue(contents, nodeset, own, secrets)
    }

    /// Makes the next version with these epochs marked as exposed: somebody who should not could read their keys
    /// or what they sealed. The mark stays for good.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when no epoch is named, the keyring has none of that number, or these are not
    /// the keyring's secrets; [`DocumentError::Signer`] and [`DocumentError::OldNodeset`] as [`Keyring::rewrap`].
    pub fn expose(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
        epochs: &[Epoch],
    ) -> Result<Self, DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        if epochs.is_empty() {
            return refuse("no epoch is named".into());
        }
        for number in epochs {
            let Some(entry) = contents.epochs.iter_mut().find(|e| e.number == *number) else {
                return refuse(format!("the keyring has no epoch {number}"));
            };
            entry.exposed = true;
        }
        Self::sign(contents, nodeset, own, secrets)
    }

    /// Makes the next version for contents that come from another store, into a store of this lineage that never
    /// held a record: their state key in place of its own, a fresh primary epoch above all of both stores, and the
    /// earlier epochs retired, so that what they sealed still opens.
    ///
    /// Where a recipient is gone, the earlier epochs are marked exposed, as by [`Keyring::rewrap`].
    ///
    /// # Errors
    /// [`DocumentError::Signer`] when no key of the file is in the nodeset; [`DocumentError::OldNodeset`] when the
    /// nodeset is older than the keyring's; [`DocumentError::Invalid`] when these are not the keyring's secrets, or
    /// no epoch is left.
    pub fn carry_over(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
        carried: CarriedOver,
        now: UnixTime,
    ) -> Result<(Self, Secrets), DocumentError> {
        let mut contents = self.step(nodeset, own, secrets)?;
        let number = next_number(&contents, Some(carried.last_epoch))?;
        for entry in contents.epochs.iter_mut().filter(|e| e.state != EpochState::Destroyed) {
            entry.state = EpochState::Retired;
        }
        let key = EpochKey::generate();
        contents.state_commitment = derive::state_commitment(&carried.state, &contents.cluster);
        let primary = fresh(number, EpochState::Primary, &key, &contents, now);
        contents.epochs.push(primary);
        let secrets = secrets.reissue(&contents, Some((number, key)), Some(carried.state));
        Self::issue(contents, nodeset, own, secrets)
    }

    /// What the next version says before anything is changed, for whoever has this version's secrets.
    fn step(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<Contents, DocumentError> {
        if self.fits(secrets) {
            self.next(nodeset, own)
        } else {
            refuse("these are not the secrets of this keyring".into())
        }
    }

    fn must_be_staged(&self) -> Result<(), DocumentError> {
        if self.staged().is_some() { Ok(()) } else { refuse("no epoch is staged".into()) }
    }

    fn issue(
        contents: Contents,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: Option<Secrets>,
    ) -> Result<(Self, Secrets), DocumentError> {
        let Some(secrets) = secrets else {
            return refuse("these are not the secrets of this keyring".into());
        };
        let keyring = Self::sign(contents, nodeset, own, &secrets)?;
        Ok((keyring, secrets))
    }
}

fn refuse<T>(why: String) -> Result<T, DocumentError> {
    Err(DocumentError::Invalid(why))
}

fn fresh(number: Epoch, state: EpochState, key: &EpochKey, contents: &Contents, now: UnixTime) -> EpochEntry {
    let commitment = derive::epoch_commitment(key, &contents.cluster);
    EpochEntry { number, state, created: now, commitment, exposed: false, retained: false }
}

/// The number after the highest, also of what is carried over: no number means two keys.
fn next_number(contents: &Contents, carried: Option<Epoch>) -> Result<Epoch, DocumentError> {
    let last = contents.epochs.iter().map(|entry| entry.number).chain(carried).max();
    let next = last.and_then(Epoch::next).filter(|_| contents.epochs.len() < MAX_EPOCHS);
    next.ok_or_else(|| DocumentError::Invalid("no epoch number is left".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Lineage, keyring::RetainedWrap, nodeset::Plan, operator_key::OperatorKey};

    #[test]
    fn a_keyring_that_nobody_could_read_is_not_made() {
        let operator = OperatorKey::generate();
        let own = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
        let now = UnixTime::from_seconds(1);
        let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
        let (mut keyring, secrets) = Keyring::create(&nodeset, &own, Lineage::random(), None, now).unwrap();
        let wrap = |number: u32| RetainedWrap {
            epoch: Epoch::from_stored(number).unwrap(),
            recipient: [1; 32],
            wrapped: vec![0; super::super::RETAINED_WRAP_BYTES],
        };
        keyring.contents.retained = (1..900).map(wrap).collect();
        let refused = keyring.stage(&nodeset, &own, &secrets, now).unwrap_err();
        assert!(matches!(&refused, DocumentError::Invalid(why) if why.contains("1048576")), "{refused:?}");
    }
}
