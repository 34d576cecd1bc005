//! The keyrings of a receipt: one rotation, step by step.

use crate::{
    error::{DocumentError, ReceiptError},
    id::Epoch,
    keyring::{EpochState, Keyring},
    nodeset::Nodeset,
    receipt::ReceiptDraft,
};

/// The keyrings, once they are known to be the steps of one rotation.
pub(super) struct Keyrings {
    /// The one with the new epoch staged.
    pub(super) staged: Keyring,
    /// Those with the new epoch activated and none of the old ones destroyed: a census is of one of them.
    pub(super) active: Vec<Keyring>,
    /// The one with the old epochs destroyed.
    pub(super) last: Keyring,
}

impl Keyrings {
    pub(super) fn of(draft: &ReceiptDraft, nodeset: &Nodeset) -> Result<Self, ReceiptError> {
        let refused = |source: DocumentError| ReceiptError::Document { document: "keyring", source };
        let mut all: Vec<Keyring> = Vec::with_capacity(draft.keyrings.len());
        for bytes in &draft.keyrings {
            let keyring = Keyring::decode(bytes, nodeset, None).map_err(refused)?;
            if let Some(before) = all.last() {
                keyring.continues(before).map_err(ReceiptError::Keyrings)?;
                let is_next = before.version().checked_add(1) == Some(keyring.version());
                if before.primary().number == draft.to && !is_next {
                    return Err(ReceiptError::Keyrings("a version is missing"));
                }
            }
            all.push(keyring);
        }
        let mut all = all.into_iter();
        let (Some(staged), Some(last)) = (all.next(), all.next_back()) else {
            return Err(ReceiptError::Keyrings("there are too few"));
        };
        begins(&staged, draft)?;
        ends(&last, draft, nodeset)?;
        let is_active = |keyring: &Keyring| {
            let retired = |number: &Epoch| state(keyring, *number) == Some(EpochState::Retired);
            keyring.primary().number == draft.to && draft.from.iter().all(retired)
        };
        let active: Vec<Keyring> = all.filter(is_active).collect();
        if active.is_empty() {
            return Err(ReceiptError::Keyrings("none has the new epoch activated and the old ones retired"));
        }
        Ok(Self { staged, active, last })
    }
}

fn state(keyring: &Keyring, number: Epoch) -> Option<EpochState> {
    keyring.epochs().iter().find(|entry| entry.number == number).map(|entry| entry.state)
}

fn begins(staged: &Keyring, draft: &ReceiptDraft) -> Result<(), ReceiptError> {
    if *staged.lineage() != draft.lineage {
        return Err(ReceiptError::Differs("lineage"));
    }
    if staged.staged().map(|entry| entry.number) != Some(draft.to) {
        return Err(ReceiptError::Differs("to"));
    }
    // Whatever could be opened before it is what it replaces: nothing is left out.
    let open = |state| matches!(state, EpochState::Primary | EpochState::Retired);
    let open = staged.epochs().iter().filter(|entry| open(entry.state)).map(|entry| entry.number);
    if open.eq(draft.from.iter().copied()) { Ok(()) } else { Err(ReceiptError::Differs("from")) }
}

fn ends(last: &Keyring, draft: &ReceiptDraft, nodeset: &Nodeset) -> Result<(), ReceiptError> {
    if last.nodeset_version() != nodeset.version() {
        return Err(ReceiptError::Keyrings("the last one was made for another nodeset"));
    }
    for entry in last.epochs() {
        let wanted = if entry.number == draft.to { EpochState::Primary } else { EpochState::Destroyed };
        if entry.state != wanted {
            return Err(ReceiptError::Keyrings("in the last one an epoch besides the new one opens"));
        }
        if draft.from.contains(&entry.number) && entry.retained != draft.retained {
            return Err(ReceiptError::Differs("retained"));
        }
    }
    Ok(())
}
