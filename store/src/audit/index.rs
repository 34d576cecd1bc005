//! Finds any of a million needles in a stream of bytes, in one pass.
//!
//! A needle is entered by a window of its bytes: one that few other needles are entered by, so that a million
//! handles with one beginning do not all stand in one bucket. A bitmap that nearly fits a processor's cache throws out
//! nearly every place of a file; what passes is looked up in a table and then compared in full.
//!
//! Visits to the bitmap cost the most. Needles that are long enough are therefore entered by [`STRIDE`] windows that
//! follow each other: one of them stands at a multiple of the stride wherever the needle stands, so that only each
//! fourth place of a file is visited.

use super::canary::{Canaries, Needle, SHORTEST_BYTES, slice};

/// Bytes of a window: the whole of the shortest needle.
const WINDOW: usize = SHORTEST_BYTES;

/// Places of a file of which one is visited, for needles that are long enough.
const STRIDE: usize = 4;

/// Bits by which an item's step is packed beside the needle's number.
const STEP_BITS: u32 = STRIDE.ilog2();

/// Windows of a needle that are weighed against each other.
const WEIGHED: usize = 64;

/// The prepared needles.
#[derive(Debug)]
pub(crate) struct Index {
    canaries: Canaries,
    long: Table,
    short: Option<Table>,
    longest: usize,
}

/// The windows of some needles.
#[derive(Debug)]
struct Table {
    bitmap: Box<[u64]>,
    bitmap_shift: u32,
    /// Where each bucket begins in `items`; one more than there are buckets.
    starts: Box<[u32]>,
    starts_shift: u32,
    items: Box<[Item]>,
}

/// One window of one needle.
#[derive(Debug, Clone, Copy, Default)]
struct Item {
    fingerprint: u32,
    /// The needle's number, and how many bytes behind its window this one stands.
    needle_and_step: u32,
}

fn hash(window: u64) -> u64 {
    (window ^ (window >> 23)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Two bits of one word, so that a look-up costs one visit to memory.
fn bits(hash: u64) -> u64 {
    (1 << ((hash >> 32) & 63)) | (1 << ((hash >> 26) & 63))
}

fn fingerprint(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn place(hash: u64, shift: u32) -> usize {
    usize::try_from(hash >> shift).unwrap_or(usize::MAX)
}

fn hash_of(&[a, b, c, d, e, f]: &[u8; WINDOW]) -> u64 {
    hash(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn windows_of(bytes: &[u8]) -> impl Iterator<Item = &[u8; WINDOW]> {
    bytes.windows(WINDOW).filter_map(<[u8]>::first_chunk)
}

/// Log2 of a power of two that is at least `wanted`, within limits.
fn log2_at_least(wanted: usize, least: u32, most: u32) -> u32 {
    wanted.max(1).next_power_of_two().ilog2().clamp(least, most)
}

impl Index {
    /// Prepares the values, and the structures that need no value.
    pub(crate) fn build(mut canaries: Canaries) -> Self {
        canaries.add_structures();
        choose_windows(&mut canaries);
        let numbered = || (0_u32..).zip(canaries.needles());
        let long: Vec<(u64, u32)> = numbered()
            .filter(|(_, needle)| is_long(needle))
            .flat_map(|(number, needle)| {
                let bytes = canaries.bytes(needle).get(usize::from(needle.window)..).unwrap_or_default();
                let steps = windows_of(bytes).take(STRIDE).zip(0_u32..);
                steps.map(move |(window, step)| (hash_of(window), (number << STEP_BITS) | step))
            })
            .collect();
        let short: Vec<(u64, u32)> = numbered()
            .filter(|(_, needle)| !is_long(needle))
            .flat_map(|(number, needle)| {
                let bytes = canaries.bytes(needle).get(usize::from(needle.window)..).unwrap_or_default();
                windows_of(bytes).take(1).map(move |window| (hash_of(window), number << STEP_BITS))
            })
            .collect();
        Self {
            long: Table::build(&long),
            short: (!short.is_empty()).then(|| Table::build(&short)),
            longest: canaries.needles().iter().map(Needle::len).max().unwrap_or(0),
            canaries,
        }
    }

    /// Bytes of the longest needle.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `found` with the place and the needle of each occurrence.
    pub(crate) fn scan(&self, bytes: &[u8], mut found: impl FnMut(usize, &Needle)) {
        for (number, window) in bytes.windows(WINDOW).step_by(STRIDE).enumerate() {
            if let Some(hash) = window.first_chunk().map(hash_of).filter(|&hash| self.long.may_have(hash)) {
                self.compare(&self.long, bytes, number * STRIDE, hash, &mut found);
            }
        }
        let Some(short) = &self.short else { return };
        for (at, window) in bytes.windows(WINDOW).enumerate() {
            if let Some(hash) = window.first_chunk().map(hash_of).filter(|&hash| short.may_have(hash)) {
                self.compare(short, bytes, at, hash, &mut found);
            }
        }
    }

    #[inline(never)]
    fn compare(
        &self,
        table: &Table,
        bytes: &[u8],
        at: usize,
        hash: u64,
        found: &mut impl FnMut(usize, &Needle),
    ) {
        let wanted = fingerprint(hash);
        for item in table.bucket(hash).iter().filter(|item| item.fingerprint == wanted) {
            let number = usize::try_from(item.needle_and_step >> STEP_BITS).unwrap_or(usize::MAX);
            let Some(needle) = self.canaries.needles().get(number) else { continue };
            let step = usize::try_from(item.needle_and_step & ((1 << STEP_BITS) - 1)).unwrap_or(0);
            let Some(start) = at.checked_sub(usize::from(needle.window) + step) else { continue };
            let here = bytes.get(start..).and_then(|rest| rest.get(..needle.len()));
            if here.is_some_and(|here| here == self.canaries.bytes(needle)) {
                found(start, needle);
            }
        }
    }
}

impl Table {
    /// Counts the items of each bucket, turns counts into ends, and fills each bucket from its end.
    fn build(windows: &[(u64, u32)]) -> Self {
        // About 16 bits of the bitmap a window, two of them set: one place in 70 passes by chance.
        let bitmap_log2 = log2_at_least(windows.len().div_ceil(4), 8, 24);
        let starts_log2 = log2_at_least(windows.len(), 4, 28);
        let mut table = Self {
            bitmap: vec![0; 1 << bitmap_log2].into_boxed_slice(),
            bitmap_shift: 64 - bitmap_log2,
            starts: vec![0; (1 << starts_log2) + 1].into_boxed_slice(),
            starts_shift: 64 - starts_log2,
            items: vec![Item::default(); windows.len()].into_boxed_slice(),
        };
        for &(hash, _) in windows {
            if let Some(word) = table.bitmap.get_mut(place(hash, table.bitmap_shift)) {
                *word |= bits(hash);
            }
            if let Some(count) = table.starts.get_mut(place(hash, table.starts_shift)) {
                *count += 1;
            }
        }
        let mut end: u32 = 0;
        for start in &mut table.starts {
            end += *start;
            *start = end;
        }
        for &(hash, needle_and_step) in windows {
            let Some(start) = table.starts.get_mut(place(hash, table.starts_shift)) else { continue };
            *start -= 1;
            if let Some(item) = usize::try_from(*start).ok().and_then(|at| table.items.get_mut(at)) {
                *item = Item { fingerprint: fingerprint(hash), needle_and_step };
            }
        }
        table
    }

    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let bits = bits(hash);
        self.bitmap.get(place(hash, self.bitmap_shift)).is_some_and(|word| word & bits == bits)
    }

    fn bucket(&self, hash: u64) -> &[Item] {
        let bucket = place(hash, self.starts_shift);
        let (Some(&from), Some(&to)) = (self.starts.get(bucket), self.starts.get(bucket + 1)) else {
            return &[];
        };
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return &[] };
        self.items.get(from..to).unwrap_or_default()
    }
}

/// Whether a needle has [`STRIDE`] windows.
fn is_long(needle: &Needle) -> bool {
    needle.len() >= WINDOW + STRIDE - 1
}

/// Enters each needle by a window that few others are entered by and that is rare in others, as far as tables of
/// counters can tell.
fn choose_windows(canaries: &mut Canaries) {
    let (arena, needles) = canaries.needles_mut();
    let total: usize = needles.iter().map(|needle| needle.len().min(WEIGHED)).sum();
    let log2 = log2_at_least(total, 8, 24);
    let mut counts = vec![0_u32; 1 << log2];
    let weighed = |needle: &Needle| windows_of(slice(arena, needle)).take(WEIGHED);
    for needle in &*needles {
        for window in weighed(needle) {
            if let Some(count) = counts.get_mut(place(hash_of(window), 64 - log2)) {
                *count = count.saturating_add(1);
            }
        }
    }
    let mut entered = vec![0_u32; 1 << log2];
    let mut slots = Vec::with_capacity(WEIGHED);
    for needle in needles {
        slots.clear();
        slots.extend(windows_of(slice(arena, needle)).take(WEIGHED).map(|window| {
            let slot = place(hash_of(window), 64 - log2);
            let at = |counts: &[u32]| counts.get(slot).copied().unwrap_or(u32::MAX);
            (slot, (is_padding(window), at(&entered), at(&counts)))
        }));
        let steps = if is_long(needle) { STRIDE } else { 1 };
        let weight = |group: &[(usize, (bool, u32, u32))]| group.iter().map(|&(_, weight)| weight).max();
        let best = (0_u16..).zip(slots.windows(steps)).min_by_key(|&(_, group)| weight(group));
        let Some((at, group)) = best else { continue };
        needle.window = at;
        for &(slot, _) in group {
            if let Some(entered) = entered.get_mut(slot) {
                *entered = entered.saturating_add(1);
            }
        }
    }
}

/// Whether a window is one byte again and again, as padding is.
fn is_padding(window: &[u8]) -> bool {
    window.iter().all(|byte| Some(byte) == window.first())
}

#[cfg(test)]
mod tests {
    use super::super::canary::{Meaning, ValueKind};
    use super::*;

    fn places(index: &Index, bytes: &[u8]) -> Vec<usize> {
        let mut places = Vec::new();
        index.scan(bytes, |at, needle| {
            if matches!(needle.meaning, Meaning::Value(_)) {
                places.push(at);
            }
        });
        places
    }

    #[test]
    fn a_needle_is_found_wherever_it_stands() {
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::PublicKey, &[0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7]);
        let index = Index::build(canaries);
        for before in 0..40 {
            for after in 0..3 {
                let mut bytes = vec![0; before];
                bytes.extend([0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7]);
                bytes.extend(vec![0xff; after]);
                assert_eq!(places(&index, &bytes), [before]);
            }
        }
        assert!(places(&index, &[0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6]).is_empty());
    }

    #[test]
    fn handles_with_one_beginning_do_not_share_a_window() {
        let mut canaries = Canaries::default();
        for number in 0..20_000 {
            canaries.add(ValueKind::Handle, format!("department-user-{number:06}").as_bytes());
        }
        let index = Index::build(canaries);
        let fullest = index.long.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        // The first of four windows in a row has three digits: more than a thousand different ones there are not.
        assert!(fullest < 2_000, "a bucket of {fullest}");
        assert_eq!(places(&index, b"xx department-user-017113 yy"), [3]);
    }

    #[test]
    fn short_and_long_needles_are_found_side_by_side() {
        let mut canaries = Canaries::default();
        for length in 6..20 {
            canaries.add(ValueKind::Handle, &b"abcdefghijklmnopqrstuvwxyz"[..length]);
        }
        let index = Index::build(canaries);
        for before in 0..9 {
            let bytes = [&vec![b'-'; before], b"abcdefghijklmnopqrstuvwxyz".as_slice()].concat();
            assert_eq!(places(&index, &bytes), [before; 14]);
        }
    }

    #[test]
    fn every_needle_of_many_is_found() {
        let mut canaries = Canaries::default();
        let mut state = 7_u64;
        let mut bytes = Vec::new();
        for _ in 0..3_000 {
            let value: Vec<u8> = (0..24)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state.to_be_bytes()[0]
                })
                .collect();
            canaries.add(ValueKind::PublicKey, &value);
            bytes.extend(&value);
        }
        assert_eq!(places(&Index::build(canaries), &bytes).len(), 3_000);
    }
}
