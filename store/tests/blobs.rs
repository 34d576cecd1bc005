//! Sealed blobs that are whole, and what becomes of others.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::UnixTime;
use unibus_store::blobs::{BlobError, BlobStore};
use unibus_store::record::{Blob, BlobHash, Record, Timestamp};

const LIMIT: u64 = 1 << 24;
const FUTURE: UnixTime = UnixTime::from_seconds(u64::MAX);

fn open() -> (TempDir, BlobStore) {
    let folder = TempDir::new().unwrap();
    let blobs = BlobStore::open(&folder.path().join("blobs")).unwrap();
    (folder, blobs)
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000).unwrap()
}

fn put(blobs: &BlobStore, content: &[u8]) -> Blob {
    blobs.put(&mut &*content, LIMIT, now()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "what is written here is the damage")]
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_mul(31).to_be_bytes()[7]).collect()
}

#[test]
fn contents_of_all_sizes_read_back_through_their_records() {
    let (_folder, blobs) = open();
    for length in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 131_072, 131_073, 1_000_000] {
        let content = content(length);
        let blob = put(&blobs, &content);
        assert_eq!(blob.sha256, BlobHash::of(&content));
        let Record::Blob(decoded) = Record::decode(blob.encode().as_bytes()).unwrap() else { unreachable!() };
        assert_eq!(*blobs.get(&decoded).unwrap(), content, "{length} bytes");
        blobs.check(&blob).unwrap();
        let mode = fs::metadata(blobs.path_of(&blob.storage_name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(blobs.folder().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn files_show_a_size_class_only() {
    let (_folder, blobs) = open();
    let length =
        |content: &[u8]| fs::metadata(blobs.path_of(&put(&blobs, content).storage_name)).unwrap().len();
    assert_eq!(length(&content(0)), length(&content(256)));
    assert_eq!(length(&content(66_000)), length(&content(73_000)));
    let (one, two) = (put(&blobs, b"the same content"), put(&blobs, b"the same content"));
    assert_ne!(
        fs::read(blobs.path_of(&one.storage_name)).unwrap(),
        fs::read(blobs.path_of(&two.storage_name)).unwrap()
    );
}

#[test]
fn a_content_over_the_limit_leaves_nothing() {
    let (_folder, blobs) = open();
    let exact = blobs.put(&mut content(1_000).as_slice(), 1_000, now()).unwrap();
    blobs.check(&exact).unwrap();
    let refused = blobs.put(&mut content(1_001).as_slice(), 1_000, now()).unwrap_err();
    assert!(matches!(refused, BlobError::TooLarge { limit: 1_000 }));
    assert!(matches!(blobs.put(&mut io::repeat(1), 100_000, now()), Err(BlobError::TooLarge { .. })));
    assert_eq!(fs::read_dir(blobs.folder().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_content_that_cannot_be_read_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the peer went away"))
        }
    }
    let (_folder, blobs) = open();
    let refused = blobs.put(&mut content(100_000).chain(Broken), LIMIT, now()).unwrap_err();
    assert!(matches!(refused, BlobError::Source(_)));
    assert_eq!(fs::read_dir(blobs.folder().unwrap()).unwrap().count(), 0);
}

#[test]
fn a_missing_file_is_named() {
    let (_folder, blobs) = open();
    let blob = put(&blobs, b"content");
    fs::remove_file(blobs.path_of(&blob.storage_name)).unwrap();
    let refused = blobs.get(&blob).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (ErrorClass::Tampered, "UB-S061"));
    assert!(refused.to_string().contains(&blob.storage_name.to_string()));
}

#[test]
fn every_flip_and_every_cut_is_refused() {
    let (_folder, blobs) = open();
    let blob = put(&blobs, &content(300));
    let path = blobs.path_of(&blob.storage_name);
    let good = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for (at, place) in (0..good.len()).zip(0_u64..) {
        for bit in 0..8 {
            file.write_all_at(&[good.get(at).unwrap() ^ (1 << bit)], place).unwrap();
            let refused = blobs.get(&blob).unwrap_err();
            let is_named = if at < 8 {
                matches!(refused, BlobError::Decode { .. })
            } else {
                matches!(refused, BlobError::Chunk { number: 0, .. })
            };
            assert!(is_named, "bit {bit} of byte {at}: {refused}");
        }
        file.write_all_at(good.get(at..=at).unwrap(), place).unwrap();
    }
    for at in (0..wide(good.len())).rev() {
        file.set_len(at).unwrap();
        assert!(matches!(blobs.check(&blob), Err(BlobError::Length { .. })), "cut at {at}");
    }
    write(&path, &[good.as_slice(), &[0]].concat());
    assert!(matches!(blobs.check(&blob), Err(BlobError::Length { .. })));
    write(&path, &good);
    blobs.check(&blob).unwrap();
}

#[test]
fn swapped_files_and_swapped_chunks_are_refused() {
    let (_folder, blobs) = open();
    let (one, two) = (put(&blobs, &content(200_000)), put(&blobs, &content(199_999)));
    let (path, other) = (blobs.path_of(&one.storage_name), blobs.path_of(&two.storage_name));
    let (good, strange) = (fs::read(&path).unwrap(), fs::read(&other).unwrap());
    write(&path, &strange);
    write(&other, &good);
    for blob in [&one, &two] {
        assert!(matches!(blobs.get(blob), Err(BlobError::Chunk { number: 0, .. })));
    }
    let (head, chunks) = good.split_at(8);
    let mut chunks: Vec<&[u8]> = chunks.chunks(65_552).collect();
    chunks.swap(1, 2);
    write(&path, &[head, &chunks.concat()].concat());
    assert!(matches!(blobs.get(&one), Err(BlobError::Chunk { number: 1, .. })));
    chunks.swap(1, 2);
    let last = chunks.len() - 1;
    *chunks.get_mut(last).unwrap() =
        good.get(8 + 65_552..).unwrap().get(..chunks.last().unwrap().len()).unwrap();
    write(&path, &[head, &chunks.concat()].concat());
    assert!(matches!(blobs.get(&one), Err(BlobError::Chunk { .. })));
}

#[test]
fn a_record_of_another_content_is_refused() {
    let (_folder, blobs) = open();
    let blob = put(&blobs, b"content");
    let record = |hash: BlobHash, size: u64| {
        Blob::new(hash, size, blob.key.clone(), blob.storage_name, blob.created_at).unwrap()
    };
    let refused = blobs.get(&record(BlobHash::of(b"another"), 7)).unwrap_err();
    assert!(matches!(refused, BlobError::Content { .. }));
    let refused = blobs.get(&record(blob.sha256, 6)).unwrap_err();
    assert!(matches!(refused, BlobError::Content { .. }), "a byte of content is no padding: {refused}");
    assert!(matches!(blobs.get(&record(blob.sha256, 1_000_000)), Err(BlobError::Length { .. })));
    assert!(matches!(blobs.get(&record(blob.sha256, 1 << 62)), Err(BlobError::Length { .. })));
}

#[test]
fn a_link_and_a_pipe_are_refused() {
    let (folder, blobs) = open();
    let blob = put(&blobs, b"content");
    let (path, elsewhere) = (blobs.path_of(&blob.storage_name), folder.path().join("elsewhere"));
    fs::copy(&path, &elsewhere).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(matches!(blobs.get(&blob), Err(BlobError::Io { .. })));
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(blobs.get(&blob), Err(BlobError::Length { .. })));
}

#[test]
fn orphans_are_found_and_nothing_else_is() {
    let (_folder, blobs) = open();
    let (kept, lost) = (put(&blobs, b"kept"), put(&blobs, b"lost"));
    let half = blobs.folder().unwrap().join(format!(".{}.0123456789abcdef.tmp", kept.storage_name));
    write(&half, b"half");
    for name in ["README", "0123", ".hidden.tmp", "ABCDEF0123456789ABCDEF0123456789"] {
        write(&blobs.folder().unwrap().join(name), b"somebody else's");
    }
    let is_named = |name: &unibus_store::record::StorageName| *name == kept.storage_name;
    assert_eq!(blobs.orphans(UnixTime::from_seconds(1), &is_named).unwrap(), []);
    let orphans = blobs.orphans(FUTURE, &is_named).unwrap();
    let paths: Vec<_> = orphans.iter().map(|orphan| orphan.path.clone()).collect();
    assert_eq!(paths, [half, blobs.path_of(&lost.storage_name)]);
    blobs.remove_orphans(&orphans).unwrap();
    assert_eq!(fs::read_dir(blobs.folder().unwrap()).unwrap().count(), 5);
    blobs.check(&kept).unwrap();
    assert_eq!(blobs.orphans(FUTURE, &is_named).unwrap(), []);
}
