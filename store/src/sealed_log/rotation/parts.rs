//! The receipt in the log: in one entry as far as it goes, else in parts, which the entry `receipt` names by its hash.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use unibus_keyfile::id::DocumentHash;

use super::Evidence;

/// Label of the receipt of the last rotation.
pub(super) const RECEIPT: &str = "receipt";
/// What the labels of its parts begin with.
const PART: &str = "receipt/";
/// Most bytes of a part: an entry is padded to a power of two, and has to fit into one message.
const PART_MAX: usize = 240 << 10;
/// What the entry begins with if there are parts; a receipt is JSON.
const IN_PARTS: &[u8] = b"in parts: ";
/// Bytes of the hash that a label has.
const MARK: usize = 16;

/// Whether a label is the receipt's, or a part's.
pub(super) fn is_receipt(label: &str) -> bool {
    label == RECEIPT || label.starts_with(PART)
}

/// The entries for a receipt, by label: the one that names it last, so that the one before counts until all are there.
pub(super) fn split(receipt: &[u8]) -> Vec<(String, Vec<u8>)> {
    if receipt.len() <= PART_MAX {
        return vec![(RECEIPT.to_owned(), receipt.to_vec())];
    }
    let mark = mark_of(receipt);
    let parts = receipt.chunks(PART_MAX).enumerate();
    let mut out: Vec<_> =
        parts.map(|(number, part)| (format!("{PART}{mark}/{number:04}"), part.to_vec())).collect();
    out.push((RECEIPT.to_owned(), [IN_PARTS, mark.as_bytes()].concat()));
    out
}

/// The receipt that the entries hold; none if there is none, or a part is missing or another.
pub(super) fn join(all: &Evidence) -> Option<Vec<u8>> {
    let found = all.get(RECEIPT)?;
    let Some(mark) = found.strip_prefix(IN_PARTS) else { return Some(found.clone()) };
    let prefix = format!("{PART}{}/", std::str::from_utf8(mark).ok()?);
    let parts = all.iter().filter(|(label, _)| label.starts_with(&prefix));
    let joined: Vec<u8> = parts.flat_map(|(_, part)| part.iter().copied()).collect();
    (mark_of(&joined).as_bytes() == mark).then_some(joined)
}

/// The labels of parts that are no receipt's any more.
pub(super) fn left_over(all: &Evidence, receipt: &[u8]) -> Vec<String> {
    let wanted: BTreeMap<_, _> = split(receipt).into_iter().collect();
    all.keys().filter(|label| is_receipt(label) && !wanted.contains_key(*label)).cloned().collect()
}

fn mark_of(receipt: &[u8]) -> String {
    let hash = DocumentHash::of(receipt);
    HEXLOWER.encode(hash.as_bytes().get(..MARK).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes).map(|at| u8::try_from((at * 31 + seed) % 251).unwrap()).collect()
    }

    #[test]
    fn a_receipt_of_any_size_reads_back_and_one_with_a_part_missing_is_none() {
        for size in [0, 1, PART_MAX, PART_MAX + 1, 3 * PART_MAX, 4 << 20] {
            let wanted = receipt(size, 7);
            let entries = split(&wanted);
            assert_eq!(entries.len() == 1, size <= PART_MAX);
            assert_eq!(entries.last().unwrap().0, RECEIPT, "the last one makes it count");
            let all: Evidence = entries.iter().cloned().collect();
            assert!(all.iter().all(|(label, part)| is_receipt(label) && part.len() <= PART_MAX));
            assert_eq!(join(&all).unwrap(), wanted);
            assert!(left_over(&all, &wanted).is_empty());
            for (label, _) in &entries {
                let mut all = all.clone();
                all.remove(label);
                assert_eq!(join(&all), None, "{size} without {label}");
                if label != RECEIPT {
                    all.insert(label.clone(), b"another".to_vec());
                    assert_eq!(join(&all), None, "{size} with another {label}");
                }
            }
        }
    }

    #[test]
    fn the_receipt_before_counts_until_all_parts_of_the_next_are_there_and_goes_then() {
        let (old, new) = (receipt(2 * PART_MAX, 1), receipt(2 * PART_MAX, 2));
        let mut all: Evidence = split(&old).into_iter().collect();
        all.insert("plan".to_owned(), Vec::new());
        let entries = split(&new);
        let (last, before) = entries.split_last().unwrap();
        for (label, part) in before {
            all.insert(label.clone(), part.clone());
            assert_eq!(join(&all).unwrap(), old);
        }
        all.insert(last.0.clone(), last.1.clone());
        assert_eq!(join(&all).unwrap(), new);
        let gone = left_over(&all, &new);
        assert_eq!(gone.len(), 2);
        all.retain(|label, _| !gone.contains(label));
        assert_eq!((join(&all).unwrap(), all.len()), (new, 4));
    }
}
