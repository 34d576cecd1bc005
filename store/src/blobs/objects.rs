//! Sealed blobs as objects of a JetStream object store (SPEC store, section 8.8).
//!
//! The layout is that of every object store, so that its tools can list and fetch what lies there. Only the parts are
//! read here, by their subject, one after the other: what the object's description says is believed by nobody, and no
//! consumer is made, whose filter would lie in clear on the server's disk.

mod api;
mod bucket;

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use bytes::{Buf as _, Bytes};
use data_encoding::BASE64URL;
use tokio::runtime::Handle;
use unibus_keyfile::digest::RunningHash;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::secret::BlobKey;

use super::{BlobError, HEADER_BYTES, Orphan, chunks, name_of};
use crate::record::{Blob, BlobHash, StorageName, Timestamp};
use api::{Api, LIMIT};

pub use bucket::{BUCKET, BUCKET_STREAM, BucketUse};

/// Parts of one blob that are on their way at the same time.
const WINDOW: usize = 8;
/// A count that does not fit is asked for again so often before it is believed: a server that has just begun to lead
/// may not have put in place yet all that it has.
const CONFIRMATIONS: u32 = 3;

pub(super) fn path_of(name: &StorageName) -> PathBuf {
    Path::new(BUCKET).join(name.to_string())
}

fn parts_subject(name: &StorageName) -> String {
    format!("$O.{BUCKET}.C.{name}")
}

fn info_subject(name: &StorageName) -> String {
    format!("$O.{BUCKET}.M.{}", BASE64URL.encode(name.to_string().as_bytes()))
}

/// The object store.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    api: Api,
    context: jetstream::Context,
}

impl Objects {
    pub(super) fn open(
        client: async_nats::Client,
        runtime: Handle,
        bucket: BucketUse,
    ) -> Result<Self, BlobError> {
        let context = {
            // It begins a task of its own.
            let _within = runtime.enter();
            jetstream::context::ContextBuilder::new().timeout(LIMIT).ack_timeout(LIMIT).build(client.clone())
        };
        let api = Api::new(client, runtime);
        bucket::open(&api, bucket)?;
        Ok(Self { api, context })
    }

    pub(super) fn put(
        &self,
        (key, name): (Arc<BlobKey>, StorageName),
        content: &mut dyn Read,
        limit: u64,
        now: Timestamp,
    ) -> Result<Blob, BlobError> {
        let path = path_of(&name);
        let mut upload = Upload::new(self, &name);
        let stored = chunks::seal((&key, &name), content, limit, &path, &mut |sealed| upload.part(sealed));
        let stored = stored.and_then(|(hash, size)| {
            let blob = Blob::new(BlobHash::from_bytes(hash), size, key, name, now)?;
            upload.finish()?;
            Ok(blob)
        });
        stored.inspect_err(|error| {
            // Nobody would answer that either: what was stored is an orphan.
            if !matches!(error, BlobError::Unavailable { .. }) {
                let _an_orphan_otherwise = self.remove(&name);
            }
        })
    }

    /// Finds a blob, whose number of parts must be right. Gives what reads it.
    pub(super) fn source(
        &self,
        blob: &Blob,
    ) -> Result<impl FnMut(u64, &mut Vec<u8>) -> Result<(), BlobError> + use<>, BlobError> {
        let (path, subject) = (path_of(&blob.storage_name), parts_subject(&blob.storage_name));
        let expected = chunks::chunks_of(blob.size_bytes()).unwrap_or(u64::MAX);
        let mut found = self.api.count(&subject)?;
        for _ in 1..CONFIRMATIONS {
            if found == expected {
                break;
            }
            self.api.pause()?;
            found = self.api.count(&subject)?;
        }
        if found == 0 {
            return Err(BlobError::Missing { path });
        }
        if found != expected {
            return Err(BlobError::Parts { path, expected, found });
        }
        let (api, mut left, mut next) = (self.api.clone(), Bytes::new(), 0);
        Ok(move |bytes: u64, out: &mut Vec<u8>| {
            let mut wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
            while wanted > 0 {
                if left.is_empty() {
                    let Some(part) = api.next_of(&subject, next)? else { break };
                    (left, next) = (part.payload, part.sequence.saturating_add(1));
                }
                let now = left.split_to(wanted.min(left.len()));
                out.extend_from_slice(&now);
                wanted = wanted.saturating_sub(now.len());
            }
            Ok(())
        })
    }

    pub(super) fn remove(&self, name: &StorageName) -> Result<(), BlobError> {
        self.api.purge(&info_subject(name))?;
        self.api.purge(&parts_subject(name))
    }

    pub(super) fn orphans(
        &self,
        before: UnixTime,
        is_named: &dyn Fn(&StorageName) -> bool,
    ) -> Result<Vec<Orphan>, BlobError> {
        let begin = format!("$O.{BUCKET}.C.");
        let mut orphans = Vec::new();
        for (subject, parts) in self.api.subjects(&format!("{begin}>"))? {
            let Some(name) = subject.strip_prefix(&begin).and_then(name_of) else { continue };
            if is_named(&name) {
                continue;
            }
            let Some(last) = self.api.last_of(&subject)? else { continue };
            if last.seconds.is_some_and(|seconds| seconds < before.seconds()) {
                let full = parts.saturating_sub(1).saturating_mul(chunks::wide(chunks::SEALED_CHUNK_BYTES));
                let head = if parts > 1 { chunks::wide(HEADER_BYTES) } else { 0 };
                let bytes = full.saturating_add(head).saturating_add(chunks::wide(last.payload.remaining()));
                orphans.push(Orphan { path: path_of(&name), bytes });
            }
        }
        orphans.sort();
        Ok(orphans)
    }

    pub(super) fn remove_orphans(&self, orphans: &[Orphan]) -> Result<(), BlobError> {
        let name = |orphan: &Orphan| orphan.path.file_name()?.to_str().and_then(name_of);
        orphans.iter().filter_map(name).try_for_each(|name| self.remove(&name))
    }
}

/// A blob on its way: its parts in order, some of them not yet acknowledged.
struct Upload<'o> {
    objects: &'o Objects,
    name: String,
    parts_subject: String,
    info_subject: String,
    waiting: VecDeque<PublishAckFuture>,
    last: u64,
    parts: u64,
    bytes: u64,
    hash: RunningHash,
}

impl<'o> Upload<'o> {
    fn new(objects: &'o Objects, name: &StorageName) -> Self {
        Self {
            objects,
            name: name.to_string(),
            parts_subject: parts_subject(name),
            info_subject: info_subject(name),
            waiting: VecDeque::with_capacity(WINDOW),
            last: 0,
            parts: 0,
            bytes: 0,
            hash: RunningHash::new(),
        }
    }

    fn part(&mut self, sealed: &[u8]) -> Result<(), BlobError> {
        if self.waiting.len() >= WINDOW {
            self.acknowledged()?;
        }
        self.hash.update(sealed);
        self.parts = self.parts.saturating_add(1);
        self.bytes = self.bytes.saturating_add(chunks::wide(sealed.len()));
        let message = PublishMessage::build().payload(Bytes::copy_from_slice(sealed));
        let sent = self.send(self.parts_subject.clone(), message)?;
        self.waiting.push_back(sent);
        Ok(())
    }

    fn send(&self, subject: String, message: PublishMessage) -> Result<PublishAckFuture, BlobError> {
        let context = self.objects.context.clone();
        self.objects.api.wait("store a blob", async move {
            context.send_publish(subject, message).await.map_err(|error| error.kind().to_string())
        })
    }

    /// Waits for the oldest part that is on its way. Parts must stand in the order in which they were sent, in our
    /// stream and in no other that took the subject over.
    fn acknowledged(&mut self) -> Result<(), BlobError> {
        let Some(sent) = self.waiting.pop_front() else { return Ok(()) };
        let acknowledged = self.objects.api.wait("store a blob", async move {
            sent.into_future().await.map_err(|error| error.kind().to_string())
        })?;
        if acknowledged.stream != BUCKET_STREAM || acknowledged.sequence <= self.last {
            let why = "a part was stored elsewhere, or twice, or out of order".into();
            return Err(BlobError::Unavailable { step: "store a blob", why });
        }
        self.last = acknowledged.sequence;
        Ok(())
    }

    /// Makes it an object: all parts are there, each once, and the name was never used.
    fn finish(mut self) -> Result<(), BlobError> {
        while !self.waiting.is_empty() {
            self.acknowledged()?;
        }
        let found = self.objects.api.count(&self.parts_subject)?;
        if found != self.parts {
            let path = Path::new(BUCKET).join(&self.name);
            return Err(BlobError::Parts { path, expected: self.parts, found });
        }
        let hash = std::mem::take(&mut self.hash).finish();
        let chunk_size = Some(chunks::SEALED_CHUNK_BYTES.saturating_add(HEADER_BYTES));
        let info = ObjectInfo {
            name: self.name.clone(),
            description: None,
            metadata: std::collections::HashMap::new(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: chunk_size }),
            bucket: BUCKET.to_owned(),
            nuid: self.name.clone(),
            size: usize::try_from(self.bytes).unwrap_or(usize::MAX),
            chunks: usize::try_from(self.parts).unwrap_or(usize::MAX),
            modified: None,
            digest: Some(format!("SHA-256={}", BASE64URL.encode(&hash))),
            deleted: false,
        };
        let unavailable = |why: String| BlobError::Unavailable { step: "store a blob", why };
        let text = serde_json::to_vec(&info).map_err(|error| unavailable(error.to_string()))?;
        let message = PublishMessage::build().payload(text.into()).expected_last_subject_sequence(0);
        let sent = self.send(self.info_subject.clone(), message)?;
        self.waiting.push_back(sent);
        self.acknowledged()
    }
}
