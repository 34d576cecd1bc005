//! Sealed blobs in a JetStream object store, attacked by somebody who has every right on the server.

#![cfg(feature = "sealed-log")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed step fails the test"
)]

#[path = "blob_objects/acknowledged.rs"]
mod acknowledged;
#[path = "blob_objects/server.rs"]
mod server;

use std::io;
use std::path::Path;

use async_nats::jetstream;
use bytes::Bytes;
use serde_json::{Value, json};
use server::Server;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::UnixTime;
use unibus_store::blobs::{BUCKET, BUCKET_STREAM, BlobError, BlobStore, BucketUse, file_bytes};
use unibus_store::record::{Blob, BlobHash, StorageName, Timestamp};

const LIMIT: u64 = 1 << 24;
const FUTURE: UnixTime = UnixTime::from_seconds(u64::MAX);
const MAKE: BucketUse = BucketUse::Make { replicas: 1 };
const KEEP: BucketUse = BucketUse::Keep { replicas: 1 };

/// One message of the stream: what an attacker takes and puts back.
type Message = (String, Bytes);

struct World {
    server: Server,
    runtime: Runtime,
    client: async_nats::Client,
}

impl World {
    fn new() -> Self {
        let (server, runtime) = (Server::start(), Runtime::new().unwrap());
        let client = runtime.block_on(async_nats::connect(&server.url)).unwrap();
        Self { server, runtime, client }
    }

    fn open(&self, bucket: BucketUse) -> Result<BlobStore, BlobError> {
        BlobStore::objects(self.client.clone(), self.runtime.handle().clone(), bucket)
    }

    fn context(&self) -> jetstream::Context {
        let _within = self.runtime.enter();
        jetstream::new(self.client.clone())
    }

    fn api(&self, verb: &str, question: &Value) -> Value {
        let subject = format!("$JS.API.STREAM.{verb}.{BUCKET_STREAM}");
        let answer = self.runtime.block_on(self.client.request(subject, question.to_string().into()));
        serde_json::from_slice(&answer.unwrap().payload).unwrap()
    }

    /// Every message that stands, in order.
    fn messages(&self) -> Vec<Message> {
        self.runtime.block_on(async {
            let stream = self.context().get_stream(BUCKET_STREAM).await.unwrap();
            let last = stream.get_info().await.unwrap().state.last_sequence;
            let mut all = Vec::new();
            for sequence in 1..=last {
                if let Ok(message) = stream.get_raw_message(sequence).await {
                    all.push((message.subject.to_string(), message.payload));
                }
            }
            all
        })
    }

    /// Puts these messages in place of all: whatever the attacker likes.
    fn rewrite(&self, messages: &[Message]) {
        assert_eq!(self.api("PURGE", &json!({}))["success"], true);
        self.runtime.block_on(async {
            for (subject, payload) in messages {
                self.context().publish(subject.clone(), payload.clone()).await.unwrap().await.unwrap();
            }
        });
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000).unwrap()
}

fn put(blobs: &BlobStore, content: &[u8]) -> Blob {
    blobs.put(&mut &*content, LIMIT, now()).unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_mul(31).to_be_bytes()[7]).collect()
}

fn parts_of(name: &StorageName) -> String {
    format!("$O.{BUCKET}.C.{name}")
}

#[test]
fn contents_of_all_sizes_read_back_and_are_objects_to_everybody_else() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    assert_eq!(blobs.folder(), None);
    let store = world.runtime.block_on(world.context().get_object_store(BUCKET)).unwrap();
    for length in [0, 1, 257, 65_535, 65_536, 65_537, 131_073, 1_000_000] {
        let content = content(length);
        let blob = put(&blobs, &content);
        assert_eq!(blob.sha256, BlobHash::of(&content));
        assert_eq!(*blobs.get(&blob).unwrap(), content, "{length} bytes");
        blobs.check(&blob).unwrap();
        // The client's own reader takes the same bytes, whole by its own checksum.
        let sealed = world.runtime.block_on(async {
            let mut sealed = Vec::new();
            store.get(blob.storage_name.to_string()).await.unwrap().read_to_end(&mut sealed).await.unwrap();
            sealed
        });
        assert_eq!(u64::try_from(sealed.len()).ok(), file_bytes(blob.size_bytes()));
        let folder = tempfile::tempdir().unwrap();
        let beside = BlobStore::open(folder.path()).unwrap();
        write(&beside.path_of(&blob.storage_name), &sealed);
        assert_eq!(*beside.get(&blob).unwrap(), content, "the sealed bytes are those of a file");
    }
    let other = world.open(BucketUse::Look).unwrap();
    let blob = put(&blobs, b"for every node");
    assert_eq!(other.get(&blob).unwrap().as_slice(), b"for every node");
}

#[expect(clippy::disallowed_methods, reason = "a test's own file")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn it_works_from_threads_that_may_block_inside_and_outside_of_a_runtime() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let inside = blobs.clone();
    let blob = world.runtime.block_on(async move {
        tokio::task::spawn_blocking(move || put(&inside, b"from inside")).await.unwrap()
    });
    let read = std::thread::spawn(move || blobs.get(&blob).unwrap());
    assert_eq!(read.join().unwrap().as_slice(), b"from inside");
}

#[test]
fn nothing_that_the_server_keeps_can_be_read() {
    let canary = b"canary-of-a-blob-in-an-object-store";
    let mut world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let blob = put(&blobs, &canary.repeat(9_000));
    for (subject, payload) in world.messages() {
        if subject.starts_with(&format!("$O.{BUCKET}.M.")) {
            let info: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(
                (&info["name"], &info["nuid"]),
                (&info["nuid"], &json!(blob.storage_name.to_string()))
            );
            assert!(info["description"].is_null() && info["headers"].is_null() && info["mtime"].is_null());
            assert_eq!(info["metadata"], json!({}));
        }
    }
    world.server.stop();
    let (mut files, mut folders) = (0, vec![world.server.store().to_owned()]);
    let hash = blob.sha256.to_string();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for needle in
                [&canary[..16], blob.sha256.as_bytes(), hash.as_bytes(), blob.key.expose_to_record()]
            {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{}", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 1);
}

#[test]
fn a_blob_that_is_gone_is_named() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let (gone, kept) = (put(&blobs, &content(200_000)), put(&blobs, b"kept"));
    world.api("PURGE", &json!({ "filter": parts_of(&gone.storage_name) }));
    let refused = blobs.get(&gone).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (ErrorClass::Tampered, "UB-S061"));
    assert!(refused.to_string().contains(&gone.storage_name.to_string()), "{refused}");
    blobs.check(&kept).unwrap();
}

#[test]
fn cut_swapped_repeated_and_foreign_parts_are_refused() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let (one, two) = (put(&blobs, &content(200_000)), put(&blobs, &content(199_999)));
    let good = world.messages();
    let place = |name| {
        let subject = parts_of(name);
        (0..good.len()).filter(|&at| good.get(at).unwrap().0 == subject).collect::<Vec<_>>()
    };
    let (mine, theirs) = (place(&one.storage_name), place(&two.storage_name));
    assert_eq!((mine.len(), theirs.len()), (4, 4));
    let refused = |change: &dyn Fn(&mut Vec<Message>)| {
        let mut messages = good.clone();
        change(&mut messages);
        world.rewrite(&messages);
        let error = blobs.get(&one).unwrap_err();
        // A flipped version byte is a version that is not known.
        let named = [ErrorClass::Tampered, ErrorClass::Corrupt, ErrorClass::Unsupported];
        assert!(named.contains(&error.class()), "{error}");
        error
    };
    for at in &mine {
        let error = refused(&|all| drop(all.remove(*at)));
        assert!(matches!(error, BlobError::Parts { expected: 4, found: 3, .. }), "{error}");
    }
    let error = refused(&|all| all.push(good[mine[3]].clone()));
    assert!(matches!(error, BlobError::Parts { expected: 4, found: 5, .. }), "{error}");
    let error = refused(&|all| all.swap(mine[1], mine[2]));
    assert!(matches!(error, BlobError::Chunk { number: 1, .. }), "{error}");
    let error = refused(&|all| all[mine[2]].1 = good[mine[1]].1.clone());
    assert!(matches!(error, BlobError::Chunk { number: 2, .. }), "{error}");
    for at in 0..4 {
        let error = refused(&|all| all[mine[at]].1 = good[theirs[at]].1.clone());
        assert!(matches!(error, BlobError::Chunk { .. }), "part {at} of another blob: {error}");
    }
    let error = refused(&|all| mine.iter().zip(&theirs).for_each(|(m, t)| all[*m].1 = good[*t].1.clone()));
    assert!(matches!(error, BlobError::Chunk { number: 0, .. }), "another blob: {error}");
    let longer = |bytes: &Bytes| Bytes::from([bytes, &[0_u8][..]].concat());
    let error = refused(&|all| all[mine[3]].1 = longer(&good[mine[3]].1));
    assert!(matches!(error, BlobError::Length { .. }), "{error}");
    let error = refused(&|all| all[mine[3]].1 = good[mine[3]].1.slice(1..));
    assert!(matches!(error, BlobError::Chunk { .. }), "{error}");
    let error = refused(&|all| all[mine[0]].1 = Bytes::new());
    assert!(matches!(error, BlobError::Decode { .. } | BlobError::Chunk { .. }), "{error}");
    for (part, byte) in [(0, 0), (0, 7), (0, 8), (1, 0), (2, 65_551), (3, 100)] {
        refused(&|all| {
            let mut bytes = good[mine[part]].1.to_vec();
            bytes[byte] ^= 1;
            all[mine[part]].1 = bytes.into();
        });
    }
    // The same bytes, in other pieces, are the same blob; and the good ones are still good.
    let mut pieces = good.clone();
    let (first, second) = (good[mine[0]].1.clone(), good[mine[1]].1.clone());
    pieces[mine[0]].1 = first.slice(..100);
    pieces[mine[1]].1 = Bytes::from([&first[100..], &second[..]].concat());
    for messages in [&pieces, &good] {
        world.rewrite(messages);
        blobs.check(&one).unwrap();
        blobs.check(&two).unwrap();
    }
}

#[test]
fn what_the_description_says_is_believed_by_nobody() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let (one, two) = (put(&blobs, b"content"), put(&blobs, b"another"));
    let good = world.messages();
    for (field, value) in [
        ("deleted", json!(true)),
        ("nuid", json!(two.storage_name.to_string())),
        ("size", json!(1)),
        ("chunks", json!(1_000_000_000)),
        ("digest", json!("SHA-256=AAAA")),
        ("options", json!({ "link": { "bucket": BUCKET, "name": two.storage_name.to_string() } })),
    ] {
        let mut messages = good.clone();
        let (_, info) = messages.iter_mut().find(|(subject, _)| subject.contains(".M.")).unwrap();
        let mut lie: Value = serde_json::from_slice(info).unwrap();
        lie[field] = value;
        *info = lie.to_string().into();
        world.rewrite(&messages);
        assert_eq!(blobs.get(&one).unwrap().as_slice(), b"content", "{field}");
    }
}

#[test]
fn a_record_of_another_content_or_size_is_refused_before_memory_is_taken() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let blob = put(&blobs, b"content");
    let record = |hash: BlobHash, size: u64| {
        Blob::new(hash, size, blob.key.clone(), blob.storage_name, blob.created_at).unwrap()
    };
    let refused = blobs.get(&record(BlobHash::of(b"another"), 7)).unwrap_err();
    assert!(matches!(refused, BlobError::Content { .. }));
    assert!(matches!(blobs.get(&record(blob.sha256, 1_000_000)), Err(BlobError::Parts { .. })));
    assert!(matches!(blobs.get(&record(blob.sha256, 1 << 62)), Err(BlobError::Parts { .. })));
}

#[test]
fn a_content_that_is_too_large_or_cannot_be_read_leaves_nothing() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the peer went away"))
        }
    }
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let refused = blobs.put(&mut io::repeat(1), 1_000_000, now()).unwrap_err();
    assert!(matches!(refused, BlobError::TooLarge { limit: 1_000_000 }));
    let refused = blobs.put(&mut io::Read::chain(&*content(1_000_000), Broken), LIMIT, now()).unwrap_err();
    assert!(matches!(refused, BlobError::Source(_)));
    assert_eq!(world.messages(), []);
}

#[test]
fn a_removed_blob_leaves_nothing_and_orphans_are_found() {
    let world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let (kept, lost, removed) =
        (put(&blobs, b"kept"), put(&blobs, &content(100_000)), put(&blobs, b"removed"));
    blobs.remove(&removed.storage_name).unwrap();
    blobs.remove(&removed.storage_name).unwrap();
    assert!(matches!(blobs.get(&removed), Err(BlobError::Missing { .. })));
    world.runtime.block_on(async {
        world.context().publish(format!("$O.{BUCKET}.C.strange"), "x".into()).await.unwrap().await.unwrap();
    });
    let is_named = |name: &StorageName| *name == kept.storage_name;
    assert_eq!(blobs.orphans(UnixTime::from_seconds(1), &is_named).unwrap(), [], "still young");
    let orphans = blobs.orphans(FUTURE, &is_named).unwrap();
    let found: Vec<_> = orphans.iter().map(|orphan| (orphan.path.clone(), Some(orphan.bytes))).collect();
    assert_eq!(found, [(blobs.path_of(&lost.storage_name), file_bytes(100_000))]);
    blobs.remove_orphans(&orphans).unwrap();
    assert_eq!(blobs.orphans(FUTURE, &is_named).unwrap(), []);
    blobs.check(&kept).unwrap();
    assert_eq!(world.messages().len(), 3, "the kept one's part and description, and the stranger's");
}

#[test]
fn a_store_is_made_only_when_asked_for_and_never_over_another() {
    let world = World::new();
    for bucket in [KEEP, BucketUse::Look] {
        let refused = world.open(bucket).unwrap_err();
        assert_eq!((refused.class(), refused.code()), (ErrorClass::MissingKey, "UB-S065"));
    }
    let blobs = world.open(MAKE).unwrap();
    let blob = put(&blobs, b"content");
    for bucket in [MAKE, KEEP, BucketUse::Look] {
        world.open(bucket).unwrap().check(&blob).unwrap();
    }
    assert_eq!(world.api("DELETE", &json!({}))["success"], true);
    assert!(matches!(blobs.check(&blob), Err(BlobError::NoBucket { .. })));
    assert!(blobs.put(&mut &b"x"[..], LIMIT, now()).is_err());
    assert!(world.open(KEEP).is_err(), "none was made in its place");
}

#[test]
fn a_store_with_other_settings_is_refused_by_name_and_left_alone() {
    for (setting, value) in [
        ("allow_direct", json!(true)),
        ("max_msgs", json!(10)),
        ("max_age", json!(300_000_000_000_u64)),
        ("allow_rollup_hdrs", json!(true)),
        ("discard", json!("old")),
        ("compression", json!("s2")),
        ("description", json!("blobs")),
        ("republish", json!({ "src": ">", "dest": "copies.>" })),
    ] {
        let world = World::new();
        drop(world.open(MAKE).unwrap());
        let good = world.api("INFO", &json!({}))["config"].clone();
        let mut config = good.clone();
        config[setting] = value;
        assert!(world.api("UPDATE", &config).get("error").is_none(), "{setting}");
        for bucket in [MAKE, KEEP, BucketUse::Look] {
            let refused = world.open(bucket).unwrap_err();
            assert_eq!((refused.class(), refused.code()), (ErrorClass::Tampered, "UB-S066"));
            assert!(refused.to_string().contains(setting), "{refused}");
        }
        let found = &world.api("INFO", &json!({}))["config"];
        assert!(found[setting] != good[setting], "{setting} was left alone");
    }
}

#[test]
fn a_server_that_is_gone_is_no_missing_blob() {
    let mut world = World::new();
    let blobs = world.open(MAKE).unwrap();
    let blob = put(&blobs, b"content");
    world.server.stop();
    for refused in [blobs.get(&blob).unwrap_err(), blobs.put(&mut &b"x"[..], LIMIT, now()).unwrap_err()] {
        assert_eq!((refused.class(), refused.code()), (ErrorClass::Unavailable, "UB-S067"), "{refused}");
    }
}
