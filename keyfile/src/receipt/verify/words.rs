//! The nodes' own words in a receipt: one of each node, no other, and what they have to say.

use super::Keyrings;
use crate::{
    acknowledgement::Acknowledgement,
    census::{Census, CensusFacts, DiskScan},
    error::{DocumentError, ReceiptError},
    id::{Epoch, NodeName, UnixTime},
    nodeset::Nodeset,
    receipt::{Backend, CLOCK_SLACK_SECONDS, ReceiptDraft, SQLCIPHER_STREAM},
};

/// Names of the lists of documents, for people.
pub(super) const ACKNOWLEDGEMENT: &str = "acknowledgement";
pub(super) const CENSUS: &str = "census";
pub(super) const FORGOTTEN: &str = "acknowledgement of the last keyring";

/// A document that a node signs about itself.
pub(super) trait Word: Sized {
    fn read(bytes: &[u8], nodeset: &Nodeset) -> Result<Self, DocumentError>;
    fn node(&self) -> &NodeName;
}

impl Word for Acknowledgement {
    fn read(bytes: &[u8], nodeset: &Nodeset) -> Result<Self, DocumentError> {
        Self::decode(bytes, nodeset)
    }

    fn node(&self) -> &NodeName {
        self.node()
    }
}

impl Word for Census {
    fn read(bytes: &[u8], nodeset: &Nodeset) -> Result<Self, DocumentError> {
        Self::decode(bytes, nodeset)
    }

    fn node(&self) -> &NodeName {
        self.node()
    }
}

/// The words of one list, in the order of the nodes: one of each, and of nobody else.
pub(super) fn words<T: Word>(
    list: &[Vec<u8>],
    document: &'static str,
    nodes: &[NodeName],
    nodeset: &Nodeset,
) -> Result<Vec<T>, ReceiptError> {
    let refused = |source| ReceiptError::Document { document, source };
    let mut all: Vec<T> =
        list.iter().map(|bytes| T::read(bytes, nodeset)).collect::<Result<_, _>>().map_err(refused)?;
    all.sort_by(|a, b| a.node().cmp(b.node()));
    if let Some(missing) = nodes.iter().find(|name| !all.iter().any(|word| word.node() == *name)) {
        return Err(ReceiptError::Missing { document, node: missing.clone() });
    }
    let mut wanted = nodes.iter();
    for word in &all {
        if wanted.next() != Some(word.node()) {
            return Err(lacks(document, word, "it is not wanted, or there twice"));
        }
    }
    Ok(all)
}

fn lacks(document: &'static str, word: &impl Word, why: &'static str) -> ReceiptError {
    ReceiptError::Word { document, node: word.node().clone(), why }
}

/// Each word must pass.
pub(super) fn each<T: Word>(
    words: &[T],
    document: &'static str,
    check: impl Fn(&T) -> Result<(), &'static str>,
) -> Result<(), ReceiptError> {
    words.iter().try_for_each(|word| check(word).map_err(|why| lacks(document, word, why)))
}

fn must(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

pub(super) fn acknowledged(
    words: &[Acknowledgement],
    draft: &ReceiptDraft,
    keyrings: &Keyrings,
) -> Result<(), ReceiptError> {
    each(words, ACKNOWLEDGEMENT, |word| {
        must(word.is_of(&keyrings.staged), "it is about another keyring")?;
        must(word.epochs().contains(&draft.to), "it does not open the new epoch")
    })
}

pub(super) fn forgotten(
    words: &[Acknowledgement],
    draft: &ReceiptDraft,
    keyrings: &Keyrings,
) -> Result<(), ReceiptError> {
    each(words, FORGOTTEN, |word| {
        must(word.is_of(&keyrings.last), "it is about another keyring")?;
        must(word.epochs() == [draft.to], "it opens another epoch than the new one")
    })
}

/// All counted the same at one barrier, and nothing but the new epoch. Gives what they counted.
pub(super) fn counted<'a>(
    censuses: &'a [Census],
    draft: &ReceiptDraft,
    keyrings: &Keyrings,
) -> Result<&'a CensusFacts, ReceiptError> {
    let Some(first) = censuses.first().map(Census::facts) else {
        return Err(ReceiptError::Differs("censuses"));
    };
    let is_database = draft.backend == Backend::Sqlcipher;
    each(censuses, CENSUS, |census| {
        must(keyrings.active.iter().any(|keyring| census.is_of(keyring)), "it is about another keyring")?;
        let right = (census.stream() == SQLCIPHER_STREAM) == is_database;
        must(right, "it counted another kind of store")?;
        must(census.stream() == first.stream, "it counted another stream")?;
        let barrier = (census.barrier(), census.barrier_id());
        must(barrier == (first.barrier, &first.barrier_id), "it counted at another barrier")?;
        must(*census.digest() == first.digest, "its state digest is another")?;
        must(census.records() == first.records, "its number of records is another")?;
        let others = census.entries().iter().any(|(epoch, _)| *epoch != draft.to);
        must(!others, "names stand under another epoch than the new one")?;
        must(census.entries() == first.entries.as_slice(), "its number of names is another")?;
        must(census.unsealed() == 0, "values are not sealed")?;
        must(census.undecryptable() == 0, "values do not open")?;
        let found = |scan: &DiskScan| scan.envelopes.iter().any(|(epoch, _)| draft.from.contains(epoch));
        must(!census.disk().is_some_and(found), "its disk holds envelopes of a destroyed epoch")
    })?;
    if first.records != draft.records {
        return Err(ReceiptError::Differs("records"));
    }
    // All are under one epoch. Each record has a name, and what is no record has one too.
    let entries = first.entries.first().map_or(0, |(_, count)| *count);
    if entries != draft.entries || entries < draft.records {
        return Err(ReceiptError::Differs("entries"));
    }
    Ok(first)
}

/// Whether all looked at their disks, and the other epochs of which they found envelopes.
pub(super) fn on_disk(censuses: &[Census], draft: &ReceiptDraft) -> (bool, Vec<Epoch>) {
    // A scan that read nothing has seen nothing.
    let looked = |scan: &DiskScan| scan.files > 0 && scan.bytes > 0;
    let physical = censuses.iter().all(|census| census.disk().is_some_and(looked));
    let scans = censuses.iter().filter_map(Census::disk);
    let found = scans.flat_map(|scan| &scan.envelopes).map(|(epoch, _)| *epoch);
    let mut residue: Vec<Epoch> = found.filter(|epoch| *epoch != draft.to).collect();
    residue.sort_unstable();
    residue.dedup();
    (physical, residue)
}

/// By each node's own clock: acknowledged, counted, forgotten; and all before the end.
pub(super) fn in_time(
    draft: &ReceiptDraft,
    acknowledged: &[Acknowledgement],
    censuses: &[Census],
    forgotten: &[Acknowledgement],
) -> Result<(), ReceiptError> {
    if draft.started > draft.finished {
        return Err(ReceiptError::Differs("finished"));
    }
    let not_before =
        |a: UnixTime, b: UnixTime| b.seconds().saturating_add(CLOCK_SLACK_SECONDS) >= a.seconds();
    // The lists hold the same nodes in the same order.
    for ((first, census), last) in acknowledged.iter().zip(censuses).zip(forgotten) {
        if !not_before(first.created(), census.created()) {
            return Err(lacks(CENSUS, census, "it is older than the acknowledgement"));
        }
        if !not_before(census.created(), last.created()) {
            return Err(lacks(FORGOTTEN, last, "it is older than the census"));
        }
        if !not_before(last.created(), draft.finished) {
            return Err(lacks(FORGOTTEN, last, "it is younger than the receipt"));
        }
    }
    Ok(())
}
