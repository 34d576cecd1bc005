//! Finds any of a million needles in a stream of bytes, in one pass.
//!
//! Each needle is entered by one window of its bytes: one that few other needles are entered by, so that a million
//! handles with one beginning do not all stand in one bucket. A bitmap that fits a processor's cache throws out
//! nearly every place of a file; what passes is looked up in a table and then compared in full.

use super::canary::{Canaries, Needle, SHORTEST_BYTES, slice};

/// Bytes of a window: the whole of the shortest needle.
const WINDOW: usize = SHORTEST_BYTES;

const WINDOW_MASK: u64 = (1 << (8 * WINDOW)) - 1;

/// Windows of a needle that are weighed against each other.
const WEIGHED: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Item {
    fingerprint: u32,
    needle: u32,
}

/// The prepared needles.
#[derive(Debug)]
pub(crate) struct Index {
    canaries: Canaries,
    bitmap: Box<[u64]>,
    bitmap_shift: u32,
    /// Where each bucket begins in `items`; one more than there are buckets.
    starts: Box<[u32]>,
    starts_shift: u32,
    items: Box<[Item]>,
    longest: usize,
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

fn window_value(window: &[u8]) -> u64 {
    window.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte))
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
        let count = canaries.needles().len();
        // About 32 bits of the bitmap a needle, two of them set: one place in 300 passes by chance.
        let bitmap_log2 = log2_at_least(count.div_ceil(2), 8, 22);
        let starts_log2 = log2_at_least(count, 4, 28);
        let mut index = Self {
            bitmap: vec![0; 1 << bitmap_log2].into_boxed_slice(),
            bitmap_shift: 64 - bitmap_log2,
            starts: vec![0; (1 << starts_log2) + 1].into_boxed_slice(),
            starts_shift: 64 - starts_log2,
            items: vec![Item::default(); count].into_boxed_slice(),
            longest: canaries.needles().iter().map(Needle::len).max().unwrap_or(0),
            canaries,
        };
        index.fill();
        index
    }

    /// Bytes of the longest needle.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `found` with the place and the needle of each occurrence.
    #[inline]
    pub(crate) fn scan(&self, bytes: &[u8], mut found: impl FnMut(usize, &Needle)) {
        let (bitmap, shift) = (&*self.bitmap, self.bitmap_shift);
        let mut rolling: u64 = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            rolling = (rolling << 8) | u64::from(byte);
            let hash = hash(rolling & WINDOW_MASK);
            let bits = bits(hash);
            if bitmap.get(place(hash, shift)).is_some_and(|word| word & bits == bits) {
                self.compare(bytes, at, hash, &mut found);
            }
        }
    }

    #[inline(never)]
    fn compare(&self, bytes: &[u8], last: usize, hash: u64, found: &mut impl FnMut(usize, &Needle)) {
        let Some(window_start) = (last + 1).checked_sub(WINDOW) else { return };
        let wanted = fingerprint(hash);
        for item in self.bucket(hash).iter().filter(|item| item.fingerprint == wanted) {
            let Some(needle) = self.needle(item.needle) else { continue };
            let Some(start) = window_start.checked_sub(usize::from(needle.window)) else { continue };
            let here = bytes.get(start..).and_then(|rest| rest.get(..needle.len()));
            if here.is_some_and(|here| here == self.canaries.bytes(needle)) {
                found(start, needle);
            }
        }
    }

    fn needle(&self, number: u32) -> Option<&Needle> {
        usize::try_from(number).ok().and_then(|number| self.canaries.needles().get(number))
    }

    fn bucket(&self, hash: u64) -> &[Item] {
        let bucket = place(hash, self.starts_shift);
        let (Some(&from), Some(&to)) = (self.starts.get(bucket), self.starts.get(bucket + 1)) else {
            return &[];
        };
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return &[] };
        self.items.get(from..to).unwrap_or_default()
    }

    /// Counts the items of each bucket, turns counts into ends, and fills each bucket from its end.
    fn fill(&mut self) {
        let hashes: Vec<u64> = self.canaries.needles().iter().map(|needle| self.hash_of(needle)).collect();
        for &hash in &hashes {
            if let Some(word) = self.bitmap.get_mut(place(hash, self.bitmap_shift)) {
                *word |= bits(hash);
            }
            if let Some(count) = self.starts.get_mut(place(hash, self.starts_shift)) {
                *count += 1;
            }
        }
        let mut end: u32 = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        for (number, &hash) in (0_u32..).zip(&hashes) {
            let Some(start) = self.starts.get_mut(place(hash, self.starts_shift)) else { continue };
            *start -= 1;
            if let Some(item) = usize::try_from(*start).ok().and_then(|at| self.items.get_mut(at)) {
                *item = Item { fingerprint: fingerprint(hash), needle: number };
            }
        }
    }

    fn hash_of(&self, needle: &Needle) -> u64 {
        let window = self.canaries.bytes(needle).get(usize::from(needle.window)..).unwrap_or_default();
        hash(window_value(window.get(..WINDOW).unwrap_or_default()))
    }
}

/// Enters each needle by a window that few others are entered by and that is rare in others, as far as tables of
/// counters can tell.
fn choose_windows(canaries: &mut Canaries) {
    let (arena, needles) = canaries.needles_mut();
    let total: usize = needles.iter().map(|needle| needle.len().min(WEIGHED)).sum();
    let log2 = log2_at_least(total, 8, 24);
    let mut counts = vec![0_u32; 1 << log2];
    let weighed = |needle: &Needle| {
        let bytes = slice(arena, needle);
        bytes.get(..bytes.len().min(WEIGHED)).unwrap_or_default().windows(WINDOW)
    };
    for needle in &*needles {
        for window in weighed(needle) {
            if let Some(count) = counts.get_mut(place(hash(window_value(window)), 64 - log2)) {
                *count = count.saturating_add(1);
            }
        }
    }
    let mut entered = vec![0_u32; 1 << log2];
    for needle in needles {
        let slots = weighed(needle).map(|window| (window, place(hash(window_value(window)), 64 - log2)));
        let best = (0_u16..).zip(slots).min_by_key(|&(_, (window, slot))| {
            let at = |counts: &[u32]| counts.get(slot).copied().unwrap_or(u32::MAX);
            (is_padding(window), at(&entered), at(&counts))
        });
        let Some((at, (_, slot))) = best else { continue };
        needle.window = at;
        if let Some(entered) = entered.get_mut(slot) {
            *entered = entered.saturating_add(1);
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
        let fullest = index.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        // UTF-16 has three letters in a window: a thousand different ones, if they are digits.
        assert!(fullest < 64, "a bucket of {fullest}");
        assert_eq!(places(&index, b"xx department-user-017113 yy"), [3]);
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
