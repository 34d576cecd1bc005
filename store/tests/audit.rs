//! Audits of folders that hold something, and of folders that do not.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use data_encoding::{BASE32, BASE64, BASE64_MIME, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use tempfile::TempDir;
use unibus_store::audit::{
    self, Canaries, Finding, Options, Place, Reason, Report, Residue, Structure, Tells, ValueKind,
};

const HANDLE: &str = "alice.operator";

fn key() -> Vec<u8> {
    (0..32_u8).map(|at| at.wrapping_mul(41) ^ 0xa5).collect()
}

fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add(ValueKind::Handle, HANDLE.as_bytes());
    canaries.add(ValueKind::PublicKey, &key());
    canaries
}

#[expect(clippy::disallowed_methods, reason = "a file of a test needs no durability")]
fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn scan(folder: &Path) -> Report {
    audit::scan(canaries(), &[folder.to_owned()], Options::default(), &|_| ())
}

/// Bytes that look sealed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn in_noise(text: &[u8]) -> Vec<u8> {
    [&noise(5_000), text, &noise(777)].concat()
}

fn utf16(big: bool) -> Vec<u8> {
    let unit = |unit: u16| if big { unit } else { unit.swap_bytes() };
    HANDLE.encode_utf16().flat_map(|one| unit(one).to_be_bytes()).collect()
}

#[test]
fn a_folder_of_noise_is_clean() {
    let folder = TempDir::new().unwrap();
    put(&folder, "a/sealed", &noise(3 << 20));
    put(&folder, "b/empty", &[]);
    let report = scan(folder.path());
    assert_eq!(report.residue, Residue::None, "{report:?}");
    assert_eq!((report.files, report.folders, report.bytes), (2, 3, 3 << 20));
}

#[test]
fn each_encoding_is_found_in_a_file_and_named() {
    let before = [noise(7).as_slice(), &key()].concat();
    let cases: [(&str, Vec<u8>); 15] = [
        ("raw", HANDLE.into()),
        ("raw", key()),
        ("raw in hex", HEXLOWER.encode(&key()).into()),
        ("raw in hex", HEXUPPER.encode(HANDLE.as_bytes()).into()),
        ("raw in base64", BASE64.encode(&key()).into()),
        ("raw in base64", BASE64.encode(&before).into()),
        ("raw in base64", BASE64URL_NOPAD.encode(&before[1..]).into()),
        ("raw in base64", BASE64URL_NOPAD.encode(&before[2..]).into()),
        ("raw in base64", BASE64_MIME.encode(&before).into()),
        ("raw in base32", BASE32.encode(&key()).into()),
        ("raw in base32", BASE32.encode(HANDLE.as_bytes()).to_lowercase().into()),
        ("raw in UTF-16LE", utf16(false)),
        ("raw in UTF-16BE", utf16(true)),
        ("raw in hex in base64", BASE64.encode(HEXLOWER.encode(&key()).as_bytes()).into()),
        ("raw in UTF-16LE in base64", BASE64.encode(&utf16(false)).into()),
    ];
    for (name, bytes) in cases {
        let folder = TempDir::new().unwrap();
        put(&folder, "log", &in_noise(&bytes));
        let report = scan(folder.path());
        assert_eq!(report.residue, Residue::Found(1), "{name}: {report:?}");
        let hit = &report.values.listed[0];
        assert_eq!((hit.encoding.to_string().as_str(), hit.place), (name, Place::Content));
        assert!((5_000..5_030).contains(&hit.offset), "{name}: {}", hit.offset);
        assert!(hit.file.ends_with("/log"));
    }
}

#[test]
fn a_value_across_a_border_is_found_once() {
    let texts = [key(), HEXLOWER.encode(&key()).into_bytes()];
    for (border, is_dense) in [(1 << 20, true), (1 << 20, false), (64 << 20, false)] {
        for text in &texts {
            for back in [1, text.len() / 2, text.len() - 1] {
                let folder = TempDir::new().unwrap();
                let file = fs::File::create(folder.path().join("file")).unwrap();
                let at = border - u64::try_from(back).unwrap();
                file.set_len(border + (1 << 21)).unwrap();
                if is_dense {
                    file.write_all_at(&noise(3 << 20), 0).unwrap();
                }
                file.write_all_at(text, at).unwrap();
                let report = scan(folder.path());
                assert_eq!(report.residue, Residue::Found(1), "{border} {back}: {report:?}");
                assert_eq!(report.values.listed[0].offset, at);
            }
        }
    }
}

#[test]
fn names_and_link_targets_are_read_and_withheld() {
    let folder = TempDir::new().unwrap();
    put(&folder, &format!("rooms/{HANDLE}.txt/inner"), b"x");
    put(&folder, &HEXLOWER.encode(&key()), b"y");
    symlink(format!("/nowhere/{HANDLE}"), folder.path().join("link")).unwrap();
    let report = scan(folder.path());
    assert_eq!(report.residue, Residue::Found(3), "{report:?}");
    let count = |place| report.values.listed.iter().filter(|hit| hit.place == place).count();
    assert_eq!((count(Place::Name), count(Place::LinkTarget)), (2, 1));
    let text = serde_json::to_string(&report).unwrap() + &format!("{report:?}");
    assert!(!text.contains(HANDLE) && !text.contains(&HEXLOWER.encode(&key())), "{text}");
}

#[test]
fn extended_attributes_are_read() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "plain", b"nothing here");
    let name = std::ffi::OsStr::from_bytes(b"user.owner");
    if rustix::fs::setxattr(&path, name, HANDLE.as_bytes(), rustix::fs::XattrFlags::empty()).is_err() {
        return; // This file system has no attributes.
    }
    let report = scan(folder.path());
    assert_eq!(report.values.listed[0].place, Place::Attribute, "{report:?}");
}

#[test]
fn what_cannot_be_checked_is_never_clean() {
    let folder = TempDir::new().unwrap();
    put(&folder, "old.log.xz", b"\xfd7zXZ\0\0\x04");
    put(&folder, "0.blk", b"cmp\x01abcdef");
    let outside = TempDir::new().unwrap();
    symlink(outside.path(), folder.path().join("elsewhere")).unwrap();
    let report = scan(folder.path());
    assert_eq!(report.residue, Residue::NotChecked(3), "{report:?}");
    let missing = audit::scan(canaries(), &[folder.path().join("absent")], Options::default(), &|_| ());
    assert_eq!(missing.residue, Residue::NotChecked(1));
}

#[test]
fn snapshots_of_the_meta_group_of_nats_server_are_unpacked() {
    // Made by nats-server 2.15.1 with five streams; in its packed form the subjects are torn.
    let real = include_bytes!("../testdata/nats/meta_snapshot_2.15.1.bin");
    let scan_as = |name: &str, bytes: &[u8]| {
        let folder = TempDir::new().unwrap();
        put(&folder, name, bytes);
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::Subject, b"$KV.canary.subject.name.2.");
        audit::scan(canaries, &[folder.path().to_owned()], Options::default(), &|_| ())
    };
    let report = scan_as("_meta_/snapshots/snap.1.8", real);
    assert_eq!(report.residue, Residue::Found(1), "{report:?}");
    assert_eq!(report.values.listed[0].encoding.to_string(), "raw in S2");
    let cut = scan_as("_meta_/snapshots/snap.1.8", &real[..700]);
    assert_eq!(cut.residue, Residue::NotChecked(1), "{cut:?}");
    let plain = scan_as("S-R3F-4PTw86lR/snapshots/snap.1.1", &[0; 70]);
    assert_eq!(plain.residue, Residue::None, "{plain:?}");
}

#[test]
fn a_file_that_may_not_be_read_is_not_checked() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "closed", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(&path).is_ok() {
        return; // Whoever runs the tests may read everything.
    }
    assert_eq!(scan(folder.path()).residue, Residue::NotChecked(1));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_checked() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "growing", &noise(100));
    let length = std::sync::atomic::AtomicU64::new(200);
    // Whenever it is read, it grows again.
    let report = audit::scan(canaries(), &[folder.path().to_owned()], Options::default(), &|_| {
        put(&folder, "appeared", b"z");
        let length = length.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        fs::File::options().append(true).open(&path).unwrap().set_len(length).unwrap();
    });
    assert_eq!(report.residue, Residue::NotChecked(2), "{report:?}");
    assert!(report.not_checked.iter().all(|one| one.reason == Reason::Changed));
}

#[test]
fn a_file_that_was_written_to_a_moment_ago_is_read_again_when_it_changes() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "1.blk", &noise(100));
    let once = std::sync::Once::new();
    let report = audit::scan(canaries(), &[folder.path().to_owned()], Options::default(), &|_| {
        once.call_once(|| {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, &in_noise(HANDLE.as_bytes())).unwrap();
        });
    });
    assert_eq!(report.residue, Residue::Found(1), "what was added is found, once: {report:?}");
    assert_eq!(report.not_checked, []);
}

#[test]
fn structures_need_no_value() {
    let cases: [(&[u8], Structure); 5] = [
        (b"SQLite format 3\0", Structure::PlaintextSqlite),
        (b"CREATE TABLE users(sign_pub)", Structure::TableDefinition),
        (b"UNIBUS-NODE-KEY-1QQQQ", Structure::NodeKey),
        (b"UNIBUS-OPERATOR-KEY-1QQQQ", Structure::OperatorKey),
        (b"unibus-recovery-key-1qqqq", Structure::RecoveryKey),
    ];
    for (bytes, structure) in cases {
        let folder = TempDir::new().unwrap();
        put(&folder, "file", &in_noise(bytes));
        let roots = [folder.path().to_owned()];
        let report = audit::scan(Canaries::default(), &roots, Options::default(), &|_| ());
        assert_eq!(report.structures.listed[0].finding, Finding::Structure(structure), "{report:?}");
        assert_eq!(report.values.total, 0);
    }
}

#[test]
fn headers_of_sealed_values_are_counted_by_epoch() {
    let folder = TempDir::new().unwrap();
    let envelope = |epoch: u32| [b"UBE1".as_slice(), &epoch.to_be_bytes(), &noise(300)].concat();
    let mut bytes: Vec<u8> = [3, 3, 3, 4, 0, u32::MAX].into_iter().flat_map(envelope).collect();
    bytes.resize((1 << 20) - 5, 0);
    bytes.extend(envelope(4));
    put(&folder, "1.blk", &bytes);
    let report = scan(folder.path());
    assert_eq!(report.envelopes.into_iter().collect::<Vec<_>>(), [(3, 3), (4, 2)]);
}

#[test]
fn a_list_is_capped_and_the_count_is_not() {
    let folder = TempDir::new().unwrap();
    for number in 0..30 {
        put(&folder, &format!("{number}"), format!("{HANDLE} ").repeat(100).as_bytes());
    }
    let mut options = Options::default();
    options.listed = 40;
    let report = audit::scan(canaries(), &[folder.path().to_owned()], options, &|_| ());
    assert_eq!((report.values.total, report.values.listed.len()), (3_000, 40));
}

#[test]
fn a_long_value_is_found_by_any_piece() {
    let value = noise(1_168);
    let mut canaries = Canaries::default();
    canaries.add(ValueKind::SealedKey, &value);
    let folder = TempDir::new().unwrap();
    put(&folder, "page", &value[500..600]);
    let report = audit::scan(canaries, &[folder.path().to_owned()], Options::default(), &|_| ());
    assert_eq!(report.values.listed[0].encoding.to_string(), "piece", "{report:?}");
}

#[test]
fn a_value_that_many_records_repeat_is_one_hit() {
    let mut canaries = canaries();
    for _ in 0..100 {
        canaries.add(ValueKind::PublicKey, &key());
    }
    let folder = TempDir::new().unwrap();
    put(&folder, "file", &in_noise(&key()));
    let report = audit::scan(canaries, &[folder.path().to_owned()], Options::default(), &|_| ());
    assert_eq!((report.values_looked_for, report.residue), (2, Residue::Found(1)));
}

#[test]
fn leakage_tells_what_a_thief_learns() {
    let folder = TempDir::new().unwrap();
    let mut wal = [0x37, 0x7f, 0x06, 0x82, 0, 0, 0, 0, 0, 0, 0x10, 0].to_vec();
    wal.resize(32, 0);
    for size in [0, 7, 0, 0, 9_u32] {
        wal.extend([1_u32.to_be_bytes(), size.to_be_bytes()].concat());
        wal.extend([0; 16 + 4_096]);
    }
    put(&folder, "a/control.db", &noise(3 * 4_096));
    put(&folder, "a/control.db-wal", &wal);
    put(&folder, "b/plain.db", &[b"SQLite format 3\0\x04\x00".as_slice(), &[0; 2_030]].concat());
    put(&folder, "c/blob", &[b"UBBLOB\0\x01".as_slice(), &noise(272)].concat());
    put(&folder, "d/text", b"no structure");
    let leakage = audit::leakage(&[folder.path().to_owned()], 100);
    let tells: Vec<Tells> = leakage.listed.iter().map(|seen| seen.tells.clone()).collect();
    let log = Tells::WriteAheadLog { frames: 5, commits: 2 };
    assert_eq!(tells, [Tells::Pages(3), log, Tells::PlaintextDatabase(2), Tells::Blob, Tells::Nothing]);
    assert_eq!((leakage.files, leakage.folders), (5, 5));
    assert_eq!(leakage.sizes.get(&16), Some(&1), "one file of less than 16 bytes");
    assert_eq!(leakage.hours.values().sum::<u64>(), 5);
    assert_eq!(audit::leakage(&[folder.path().to_owned()], 2).listed.len(), 2);
}

/// Prints the speed; run with `--run-ignored all --no-capture`.
#[test]
#[ignore = "a measurement"]
fn speed_with_a_million_values() {
    let folder = TempDir::new().unwrap();
    put(&folder, "noise", &noise(512 << 20));
    put(&folder, "hex", HEXLOWER.encode(&noise(16 << 20)).as_bytes());
    put(
        &folder,
        "log",
        "2026-11-22T15:43:01Z INFO membershipd: request accepted path=/v1/rooms\n".repeat(1 << 19).as_bytes(),
    );
    for (name, threads) in [("noise", 1), ("noise", 2), ("hex", 1), ("log", 1)] {
        let started = std::time::Instant::now();
        let mut million = Canaries::with_capacity(1_000_000);
        for (number, key) in (0..500_000).zip(noise(16_000_000).chunks(32)) {
            million.add(ValueKind::PublicKey, key);
            million.add(ValueKind::Handle, format!("department.person-{number:07}").as_bytes());
        }
        let added = started.elapsed();
        let (first, last) = (std::sync::OnceLock::new(), std::sync::Mutex::new(added));
        let mut options = Options::default();
        options.threads = threads;
        let report = audit::scan(million, &[folder.path().join(name)], options, &|_| {
            let now = started.elapsed();
            first.get_or_init(|| now);
            *last.lock().unwrap() = now;
        });
        let first = *first.get().unwrap();
        let reading = *last.lock().unwrap() - first;
        let megabytes = u128::from(report.bytes) / reading.as_micros();
        println!("{name}, {threads} threads: added {added:?}, built {:?}, {megabytes} MB/s", first - added);
    }
}
