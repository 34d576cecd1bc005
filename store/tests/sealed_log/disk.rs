//! Every part of the files that a server keeps of the log, changed while it stands still.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nkeys::KeyPair;
use unibus_keyfile::error::ErrorClass;
use unibus_store::record::User;
use unibus_store::sealed_log::{LogOptions, SealedLog};
use unibus_store::store::{Store, Strength};

use super::fixture::*;
use crate::server::Server;

/// Has every byte changed, not one of each part: takes some twenty minutes.
const EVERY_BYTE: &str = "UNIBUS_TEST_EVERY_BYTE";
/// Changed copies that one server has at the same time, each in an account of its own.
const COPIES: usize = 256;
/// Copies that are opened at the same time: those that are not there are asked for again for a while.
const AT_ONCE: usize = 64;
/// In the length of a stored message: it has headers.
const HAS_HEADERS: u32 = 1 << 31;
/// Time that a server with many copies has to start, and one with a single copy.
const STARTS: Duration = Duration::from_secs(60);
const LONE_STARTS: Duration = Duration::from_secs(2);
const BLOCK: &str = "msgs/1.blk";
const INDEX: &str = "msgs/index.db";

/// A part of one of the files.
#[derive(Clone, Debug)]
struct Part {
    file: &'static str,
    what: String,
    place: Range<usize>,
    /// Whether it belongs to the last message of its subject: what the log is read from.
    is_live: bool,
}

/// One byte that is changed.
#[derive(Clone, Debug)]
struct Change {
    part: Part,
    at: usize,
    /// With its index the server believes what it says of the block; without, it reads the block again.
    drops_index: bool,
}

impl Change {
    /// Whether the sequence that is read is one of many millions: a server that reads the block again then goes through
    /// all before it, for years. Nobody is served; others must not share that server.
    fn is_alone(&self) -> bool {
        self.drops_index && self.part.what.starts_with("sequence") && self.at >= self.part.place.start + 3
    }
}

/// All parts of all messages of a block: length, sequence and time, lengths of subject and headers, subject, headers,
/// payload, checksum.
fn parts_of_block(block: &[u8]) -> Vec<Part> {
    let number =
        |place: Range<usize>| block[place].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte));
    let (mut parts, mut last) = (Vec::new(), BTreeMap::new());
    let mut begin = 0;
    while begin < block.len() {
        let length = u32::try_from(number(begin..begin + 4)).unwrap();
        let end = begin + usize::try_from(length & !HAS_HEADERS).unwrap();
        let subject = begin + 22..begin + 22 + number(begin + 20..begin + 22);
        let name = String::from_utf8(block[subject.clone()].to_vec()).unwrap();
        let mut places = vec![
            ("length", begin..begin + 4),
            ("sequence", begin + 4..begin + 12),
            ("time", begin + 12..begin + 20),
            ("length of the subject", begin + 20..begin + 22),
            ("subject", subject.clone()),
        ];
        let mut payload = subject.end;
        if length & HAS_HEADERS != 0 {
            let headers = payload + 4..payload + 4 + number(payload..payload + 4);
            places.push(("length of the headers", payload..payload + 4));
            payload = headers.end;
            places.push(("headers", headers));
        }
        let (first, rest) = (payload + 1, end - 9);
        places.push(("first byte", payload..first));
        places.push(("payload", first..rest));
        places.push(("last byte", rest..end - 8));
        places.push(("checksum", end - 8..end));
        last.insert(name, parts.len()..parts.len() + places.len());
        let sequence = number(begin + 4..begin + 12);
        let part = |(what, place)| Part {
            file: BLOCK,
            what: format!("{what} of {sequence}"),
            place,
            is_live: false,
        };
        parts.extend(places.into_iter().map(part));
        begin = end;
    }
    for range in last.into_values() {
        parts[range].iter_mut().for_each(|part| part.is_live = true);
    }
    parts
}

/// A file without parts that matter here, in pieces.
fn parts_of_file(folder: &Path, file: &'static str, pieces: usize) -> Vec<Part> {
    let length = std::fs::read(folder.join(file)).unwrap().len();
    let piece = |number| {
        let place = length * number / pieces..length * (number + 1) / pieces;
        Part { file, what: format!("{file} from {}", place.start), place, is_live: false }
    };
    (0..pieces).map(piece).collect()
}

fn changes(parts: Vec<Part>) -> Vec<Change> {
    let is_each = std::env::var_os(EVERY_BYTE).is_some();
    let mut changes = Vec::new();
    for (number, part) in parts.into_iter().enumerate() {
        let Range { start, end } = part.place;
        let every = start..end;
        // Not always the first of a part.
        let one =
            start + number * 7 % (end - start).min(if part.what.starts_with("sequence") { 3 } else { 999 });
        for at in if is_each { every } else { one..one + 1 } {
            for drops_index in [false, true] {
                if part.file != INDEX || !drops_index {
                    changes.push(Change { part: part.clone(), at, drops_index });
                }
            }
        }
    }
    changes
}

/// What a node says of a changed copy: the users, or the class of its refusal.
fn look(site: &Site, server: &Server, seed: &str, number: usize) -> Result<Vec<User>, ErrorClass> {
    let state = site.folder.path().join(format!("state-{number}"));
    copy(&site.state_dir(), &state);
    let nodeset = site.folder.path().join("nodeset");
    let keys = unibus_store::keys::Keys::Node(site.own.clone());
    let options = LogOptions::new(vec![server.url()], keys, &nodeset, &state, std::sync::Arc::new(clock));
    let opened = SealedLog::open(options.identity(seed).boot_budget(Duration::from_secs(8)));
    let answer = opened.map_err(|error| error.class()).map(|log| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(log.users(Strength::Local)).unwrap()
    });
    std::fs::remove_dir_all(&state).unwrap();
    answer
}

/// Puts changed copies of the log into accounts of one server, and opens each.
fn look_at_all(site: &Site, streams: &Path, changes: &[Change]) -> Vec<Result<Vec<User>, ErrorClass>> {
    let js = site.folder.path().join("js");
    drop(std::fs::remove_dir_all(&js));
    let mut accounts = String::new();
    let mut seeds = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let copied = js.join(format!("jetstream/A{number}/streams"));
        copy(streams, &copied);
        let stream = copied.join("KV_UNIBUS_control");
        if change.drops_index {
            std::fs::remove_file(stream.join(INDEX)).unwrap();
        }
        let path = stream.join(change.part.file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[change.at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let user = KeyPair::new_user();
        let public = user.public_key();
        accounts.push_str(&format!("  A{number} {{ jetstream: enabled, users: [{{ nkey: {public} }}] }}\n"));
        seeds.push(user.seed().unwrap());
    }
    let jetstream = format!("jetstream {{ store_dir: \"{}\" }}\n", js.display());
    let config = format!("{jetstream}accounts {{\n{accounts}}}\n");
    let limit = if changes.len() == 1 { LONE_STARTS } else { STARTS };
    let Some(server) = Server::within(limit, &config) else {
        // A server that does not start is one that nobody reaches.
        assert!(changes.len() == 1, "the server does not start with one of {changes:?}");
        return vec![Err(ErrorClass::Unavailable)];
    };
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= changes.len() {
                        return;
                    }
                    let answer = look(site, &server, &seeds[number], number);
                    answers.lock().unwrap().insert(number, answer);
                }
            });
        }
    });
    answers.into_inner().unwrap().into_values().collect()
}

/// Whatever byte of the stream's files changes: the log is what it was, or it is refused. Never something else.
#[tokio::test]
async fn no_changed_byte_on_the_disk_changes_what_is_served() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..4).await;
    let users = log.users(Strength::Local).await.unwrap();
    drop(log);
    site.stop();
    let streams = site.folder.path().join("streams");
    copy(&site.folder.path().join("js/jetstream/$G/streams"), &streams);
    let stream = streams.join("KV_UNIBUS_control");
    let mut parts = parts_of_block(&std::fs::read(stream.join(BLOCK)).unwrap());
    for (file, pieces) in [(INDEX, 12), ("meta.inf", 6), ("meta.sum", 2)] {
        parts.extend(parts_of_file(&stream, file, pieces));
    }
    let changes = changes(parts);
    let (alone, together): (Vec<_>, Vec<_>) = changes.into_iter().partition(Change::is_alone);
    let (mut refused, mut served) = (0, 0);
    for changes in together.chunks(COPIES).chain(alone.chunks(1)) {
        for (change, answer) in changes.iter().zip(look_at_all(&site, &streams, changes)) {
            match answer {
                Ok(found) => {
                    assert_eq!(found, users, "{change:?}");
                    assert!(!change.part.is_live, "{change:?} is not noticed");
                    served += 1;
                }
                Err(class) => {
                    use ErrorClass::{Corrupt, MissingKey, RolledBack, Tampered};
                    assert!(
                        matches!(class, Tampered | RolledBack | MissingKey | Corrupt),
                        "{change:?}: {class:?}"
                    );
                    refused += 1;
                }
            }
        }
    }
    println!("bytes changed: {refused} refused, {served} served as they were");
    assert!(refused > 50 && served > 5, "refused {refused}, served {served}");
}
