//! Bytes of a keyring's body (SPEC keyfile, section 5.2).

use minicbor::{Decode, Encode, bytes::ByteVec};

use super::{Contents, EpochEntry, EpochState, MAX_EPOCHS, RETAINED_WRAP_BYTES, RetainedWrap, Wrap};
use crate::{
    error::DecodeError,
    id::{ClusterId, DocumentHash, Epoch, Lineage, UnixTime},
    nodeset::fixed,
    suite::SUITE_1,
};

#[derive(Encode, Decode)]
#[cbor(map)]
struct EpochBody {
    #[n(0)]
    number: u32,
    #[n(1)]
    state: u8,
    #[n(2)]
    created: u64,
    #[n(3)]
    commitment: ByteVec,
    #[n(4)]
    exposed: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WrapBody {
    #[n(0)]
    recipient: ByteVec,
    #[n(1)]
    wrapped: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RetainedBody {
    #[n(0)]
    epoch: u32,
    #[n(1)]
    recipient: ByteVec,
    #[n(2)]
    wrapped: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Body {
    #[n(0)]
    suite: u16,
    #[n(1)]
    cluster: ByteVec,
    #[n(2)]
    lineage: ByteVec,
    #[n(3)]
    version: u64,
    #[n(4)]
    nodeset_version: u64,
    #[n(5)]
    nodeset_hash: ByteVec,
    #[n(6)]
    previous: Option<ByteVec>,
    #[n(7)]
    state_commitment: ByteVec,
    #[n(8)]
    epochs: Vec<EpochBody>,
    #[n(9)]
    wraps: Vec<WrapBody>,
    /// Left out where there is none: keyrings from before it was known stay as they are.
    #[n(10)]
    retained: Option<Vec<RetainedBody>>,
}

pub(super) fn body_of(contents: &Contents) -> Body {
    Body {
        suite: SUITE_1,
        cluster: contents.cluster.as_bytes().to_vec().into(),
        lineage: contents.lineage.as_bytes().to_vec().into(),
        version: contents.version,
        nodeset_version: contents.nodeset_version,
        nodeset_hash: contents.nodeset_hash.as_bytes().to_vec().into(),
        previous: contents.previous.map(|hash| hash.as_bytes().to_vec().into()),
        state_commitment: contents.state_commitment.to_vec().into(),
        epochs: contents
            .epochs
            .iter()
            .map(|e| EpochBody {
                number: e.number.get(),
                state: e.state.number(),
                created: e.created.seconds(),
                commitment: e.commitment.to_vec().into(),
                exposed: e.exposed,
            })
            .collect(),
        wraps: contents
            .wraps
            .iter()
            .map(|w| WrapBody { recipient: w.recipient.to_vec().into(), wrapped: w.wrapped.clone().into() })
            .collect(),
        retained: (!contents.retained.is_empty())
            .then(|| contents.retained.iter().map(retained_body).collect()),
    }
}

fn retained_body(wrap: &RetainedWrap) -> RetainedBody {
    RetainedBody {
        epoch: wrap.epoch.get(),
        recipient: wrap.recipient.to_vec().into(),
        wrapped: wrap.wrapped.clone().into(),
    }
}

/// The retained wraps, ascending by epoch and recipient, each of an epoch that is destroyed; those epochs are marked.
fn retained_of(body: &Body, epochs: &mut [EpochEntry]) -> Result<Vec<RetainedWrap>, DecodeError> {
    let Some(found) = &body.retained else { return Ok(Vec::new()) };
    if found.is_empty() {
        return Err(DecodeError::Field("retained"));
    }
    let mut retained: Vec<RetainedWrap> = Vec::with_capacity(found.len());
    for wrap in found {
        let epoch = Epoch::from_stored(wrap.epoch).ok_or(DecodeError::Field("retained epoch"))?;
        let recipient = fixed(&wrap.recipient, "retained recipient")?;
        if retained.last().is_some_and(|last| last.place() >= (epoch, recipient)) {
            return Err(DecodeError::Field("retained order"));
        }
        let destroyed = epochs.iter_mut().find(|e| e.number == epoch && e.state == EpochState::Destroyed);
        destroyed.ok_or(DecodeError::Field("retained epoch"))?.retained = true;
        if wrap.wrapped.len() != RETAINED_WRAP_BYTES {
            return Err(DecodeError::Field("retained wrap"));
        }
        retained.push(RetainedWrap { epoch, recipient, wrapped: wrap.wrapped.to_vec() });
    }
    Ok(retained)
}

pub(super) fn contents_of(body: &Body) -> Result<Contents, DecodeError> {
    if body.suite != SUITE_1 {
        return Err(DecodeError::Version { found: body.suite });
    }
    if body.version == 0 || body.nodeset_version == 0 {
        return Err(DecodeError::Field("version"));
    }
    if body.previous.is_some() != (body.version > 1) {
        return Err(DecodeError::Field("previous"));
    }
    if body.epochs.len() > MAX_EPOCHS {
        return Err(DecodeError::Field("epochs"));
    }
    let mut epochs: Vec<EpochEntry> = Vec::with_capacity(body.epochs.len());
    for epoch in &body.epochs {
        let number = Epoch::from_stored(epoch.number).ok_or(DecodeError::Field("epoch"))?;
        if epochs.last().is_some_and(|last| last.number >= number) {
            return Err(DecodeError::Field("epoch order"));
        }
        epochs.push(EpochEntry {
            number,
            state: EpochState::from_number(epoch.state).ok_or(DecodeError::Field("epoch state"))?,
            created: UnixTime::from_seconds(epoch.created),
            commitment: fixed(&epoch.commitment, "commitment")?,
            exposed: epoch.exposed,
            retained: false,
        });
    }
    if epochs.iter().filter(|e| e.state == EpochState::Primary).count() != 1 {
        return Err(DecodeError::Field("primary epoch"));
    }
    if epochs.iter().filter(|e| e.state == EpochState::Staged).count() > 1 {
        return Err(DecodeError::Field("staged epoch"));
    }
    let retained = retained_of(body, &mut epochs)?;
    let mut wraps = Vec::with_capacity(body.wraps.len());
    for wrap in &body.wraps {
        wraps.push(Wrap { recipient: fixed(&wrap.recipient, "recipient")?, wrapped: wrap.wrapped.to_vec() });
    }
    Ok(Contents {
        cluster: ClusterId::from_bytes(fixed(&body.cluster, "cluster")?),
        lineage: Lineage::from_bytes(fixed(&body.lineage, "lineage")?),
        version: body.version,
        nodeset_version: body.nodeset_version,
        nodeset_hash: DocumentHash::from_bytes(fixed(&body.nodeset_hash, "nodeset hash")?),
        previous: body
            .previous
            .as_ref()
            .map(|p| fixed(p, "previous").map(DocumentHash::from_bytes))
            .transpose()?,
        state_commitment: fixed(&body.state_commitment, "state commitment")?,
        epochs,
        wraps,
        retained,
    })
}
