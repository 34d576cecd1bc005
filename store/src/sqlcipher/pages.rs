//! Pages as they lie on the disk: which key authenticates each. Read without SQLite, so that nothing is believed that
//! SQLite believes (SPEC store, section 5.10).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use unibus_keyfile::secret::DatabaseKey;
use zeroize::Zeroizing;

use super::wal::{FRAME_HEADER_BYTES, HEADER_BYTES, PAGE_BYTES};

/// First bytes of the file, in clear: the salt of the HMAC key.
const SALT_BYTES: usize = 16;
/// SQLCipher derives the HMAC key under the salt with each byte changed by this.
const SALT_MASK: u8 = 0x3a;
/// Bytes at the end of a page that are no ciphertext: IV and tag.
const TAG_BYTES: usize = 32;
const PAGE: usize = 4096;

/// Whether pages of one file are sealed under one key.
pub(super) struct Pages(Hmac<Sha256>);

impl Pages {
    /// Pages of the file that begins with this salt.
    pub(super) fn under(key: &DatabaseKey, salt: &[u8; SALT_BYTES]) -> Self {
        let salt = salt.map(|byte| byte ^ SALT_MASK);
        let derived = two_rounds(key.expose_to_sqlcipher(), &salt);
        Self(keyed::<Hmac<Sha256>>(&derived[..]))
    }

    /// Whether the page of this number is authentic.
    pub(super) fn are_of(&self, number: u32, page: &[u8; PAGE]) -> bool {
        let (sealed, tag) = page.split_at(PAGE - TAG_BYTES);
        // The salt in front of page 1 is not part of what is sealed.
        let sealed = if number == 1 { sealed.get(SALT_BYTES..).unwrap_or_default() } else { sealed };
        let mac = self.0.clone().chain_update(sealed).chain_update(number_bytes(number));
        mac.verify_slice(tag).is_ok()
    }
}

/// SQLCipher writes the number as the processor has it, which for all of ours is little-endian.
#[expect(clippy::little_endian_bytes, reason = "the format is SQLCipher's")]
const fn number_bytes(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("any length is taken")
}

/// PBKDF2-HMAC-SHA-512 with two iterations, the first 32 bytes (RFC 8018, section 5.2).
fn two_rounds(key: &[u8; 32], salt: &[u8; SALT_BYTES]) -> Zeroizing<[u8; 32]> {
    let mac = keyed::<Hmac<Sha512>>(key);
    let first = mac.clone().chain_update(salt).chain_update(1_u32.to_be_bytes()).finalize().into_bytes();
    let second = mac.chain_update(first).finalize().into_bytes();
    let mut out = Zeroizing::new([0; 32]);
    for (out, (first, second)) in out.iter_mut().zip(first.iter().zip(&second)) {
        *out = first ^ second;
    }
    out
}

/// How many pages each key authenticates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// In the order of the keys.
    pub(super) under: Vec<u64>,
    /// Under none of them.
    pub(super) unknown: u64,
}

impl Count {
    fn of(keys: usize) -> Self {
        Self { under: vec![0; keys], unknown: 0 }
    }

    fn add(&mut self, keys: &[Pages], number: u32, page: &[u8; PAGE]) {
        match keys.iter().zip(&mut self.under).find(|(key, _)| key.are_of(number, page)) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.unknown = self.unknown.saturating_add(1),
        }
    }

    pub(super) fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.under.iter_mut().zip(&other.under) {
            *count = count.saturating_add(*more);
        }
        self.unknown = self.unknown.saturating_add(other.unknown);
        self
    }
}

/// The salt of a database; none if it is shorter than a page.
pub(super) fn salt_of(file: &File) -> io::Result<Option<[u8; SALT_BYTES]>> {
    if file.metadata()?.len() < u64::from(PAGE_BYTES) {
        return Ok(None);
    }
    let mut salt = [0; SALT_BYTES];
    file.read_exact_at(&mut salt, 0)?;
    Ok(Some(salt))
}

/// Counts the pages of a database file. Nobody may write to it meanwhile.
pub(super) fn count(file: &File, keys: &[&DatabaseKey]) -> io::Result<Count> {
    let mut found = Count::of(keys.len());
    let Some(salt) = salt_of(file)? else { return Ok(found) };
    let keys: Vec<Pages> = keys.iter().map(|key| Pages::under(key, &salt)).collect();
    let mut page = [0; PAGE];
    let pages = u32::try_from(file.metadata()?.len() / u64::from(PAGE_BYTES)).unwrap_or(u32::MAX);
    for number in 1..=pages {
        let at = u64::from(number - 1).saturating_mul(PAGE_BYTES.into());
        file.read_exact_at(&mut page, at)?;
        found.add(&keys, number, &page);
    }
    Ok(found)
}

/// Counts the pages in a log: all frames, those of earlier rounds too. `salt` is that of its database.
pub(super) fn count_log(path: &Path, salt: &[u8; SALT_BYTES], keys: &[&DatabaseKey]) -> io::Result<Count> {
    let mut found = Count::of(keys.len());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let keys: Vec<Pages> = keys.iter().map(|key| Pages::under(key, salt)).collect();
    let (mut header, mut page) = ([0; FRAME_HEADER_BYTES], [0; PAGE]);
    let length = file.metadata()?.len();
    let mut at = u64::try_from(HEADER_BYTES).unwrap_or_default();
    let frame = u64::from(PAGE_BYTES).saturating_add(FRAME_HEADER_BYTES.try_into().unwrap_or_default());
    while at.saturating_add(frame) <= length {
        file.read_exact_at(&mut header, at)?;
        let body = at.saturating_add(FRAME_HEADER_BYTES.try_into().unwrap_or_default());
        file.read_exact_at(&mut page, body)?;
        let [p0, p1, p2, p3, ..] = header;
        found.add(&keys, u32::from_be_bytes([p0, p1, p2, p3]), &page);
        at = at.saturating_add(frame);
    }
    Ok(found)
}

/// Whether the file begins with a page that this key authenticates: whether it is a database under it.
pub(super) fn is_database_under(file: &File, key: &DatabaseKey) -> io::Result<bool> {
    let Some(salt) = salt_of(file)? else { return Ok(false) };
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, 0)?;
    Ok(Pages::under(key, &salt).are_of(1, &page))
}

#[cfg(test)]
mod tests {
    use unibus_keyfile::secret::DatabaseKey;

    use super::super::open::{self, Access, CacheKib};
    use super::*;

    fn key(byte: u8) -> DatabaseKey {
        DatabaseKey::init_with(|out| out.fill(byte))
    }

    #[test]
    fn every_page_that_sqlcipher_writes_is_authentic_under_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let (ours, other) = (key(7), key(8));
        let connect =
            |access| open::connect(&path, ours.expose_to_sqlcipher(), access, CacheKib::STREAMING).unwrap();
        let connection = connect(Access::Build);
        connection.execute_batch("CREATE TABLE t (a); PRAGMA journal_mode = WAL").unwrap();
        drop(connection);
        let connection = connect(Access::Writer);
        for _ in 0..50 {
            connection.execute("INSERT INTO t VALUES (randomblob(1000))", []).unwrap();
        }
        let file = File::open(&path).unwrap();
        let salt = salt_of(&file).unwrap().unwrap();
        let log = count_log(&folder.path().join("db-wal"), &salt, &[&other, &ours]).unwrap();
        assert!(log.under[0] == 0 && log.under[1] > 50 && log.unknown == 0, "{log:?}");
        drop((connection, file));
        let file = File::open(&path).unwrap();
        let found = count(&file, &[&other, &ours]).unwrap();
        assert!(found.under[0] == 0 && found.under[1] > 12 && found.unknown == 0, "{found:?}");
        assert!(is_database_under(&file, &ours).unwrap() && !is_database_under(&file, &other).unwrap());
    }

    #[test]
    fn a_page_in_another_place_or_with_one_bit_changed_is_of_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let ours = key(7);
        let connection =
            open::connect(&path, ours.expose_to_sqlcipher(), Access::Build, CacheKib::STREAMING).unwrap();
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        drop(connection);
        let bytes = std::fs::read(&path).unwrap();
        let salt: [u8; SALT_BYTES] = bytes[..SALT_BYTES].try_into().unwrap();
        let page: [u8; PAGE] = bytes[PAGE..2 * PAGE].try_into().unwrap();
        let pages = Pages::under(&ours, &salt);
        assert!(pages.are_of(2, &page) && !pages.are_of(1, &page) && !pages.are_of(3, &page));
        for bit in [0, PAGE * 8 / 2, PAGE * 8 - 1] {
            let mut changed = page;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!pages.are_of(2, &changed), "bit {bit}");
        }
    }
}
