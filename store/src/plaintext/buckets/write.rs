//! Writes invented buckets, for trials and benchmarks: the source format only, which nothing opens as a store.

use data_encoding::BASE64URL_NOPAD;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};

use super::{BUCKETS, Bucket, Buckets, Form, INDEX, stream_of};
use crate::plaintext::sample::Sample;
use crate::plaintext::{PlaintextError, RowCounts};
use crate::record::Kind;
use crate::sealed_log::others::OtherStreams;

/// Values that are sent together.
const CHUNK: usize = 1_000;

impl Sample {
    /// Writes the five buckets, which must not be there, each kept by so many servers.
    ///
    /// # Errors
    /// `BucketExists` before anything is written; `Servers`, `Sqlite`.
    pub fn write_buckets(
        self,
        buckets: &Buckets,
        replicas: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RowCounts, PlaintextError> {
        let streams = buckets.connect()?;
        let names = || BUCKETS.iter().map(|bucket| bucket.name).chain([INDEX]);
        for bucket in names() {
            if streams.state(&stream_of(bucket))?.is_some() {
                return Err(PlaintextError::BucketExists { path: buckets.name(), bucket });
            }
        }
        let failed = |source| PlaintextError::Sqlite { step: "write", path: buckets.name(), source };
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        let counts = self.fill(&mut connection, &mut |_| {}).map_err(failed)?;
        for bucket in names() {
            streams.create(&stream_of(bucket), &config(bucket, replicas))?;
        }
        let mut writer = Writer { streams: &streams, waiting: Vec::new(), done: 0, progress };
        for bucket in &BUCKETS {
            writer.table(bucket, &connection, failed)?;
        }
        writer.flush()?;
        Ok(counts)
    }
}

/// What the usual client makes of a bucket with a history of one.
fn config(bucket: &str, replicas: usize) -> Value {
    json!({
        "name": stream_of(bucket),
        "subjects": [format!("$KV.{bucket}.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
        "allow_direct": true,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
    })
}

struct Writer<'a> {
    streams: &'a OtherStreams,
    waiting: Vec<(String, Vec<u8>)>,
    done: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Writer<'_> {
    fn table(
        &mut self,
        bucket: &Bucket,
        connection: &Connection,
        failed: impl Fn(rusqlite::Error) -> PlaintextError + Copy,
    ) -> Result<(), PlaintextError> {
        let names: Vec<&str> = bucket.fields.iter().map(|(name, _)| *name).collect();
        let text = format!("SELECT {} FROM {} ORDER BY rowid", names.join(", "), bucket.table);
        let mut statement = connection.prepare(&text).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let mut fields = Map::new();
            for (name, form) in bucket.fields {
                if let Some(value) = field(row.get_ref(*name).map_err(failed)?, *form) {
                    fields.insert((*name).to_owned(), value);
                }
            }
            let part = |name: &&str| match fields.get(*name) {
                Some(Value::String(text)) => text.clone(),
                other => other.map(ToString::to_string).unwrap_or_default(),
            };
            let parts: Vec<String> = bucket.key.iter().map(part).collect();
            if bucket.kind == Kind::Member {
                let index: Vec<&str> = parts.iter().rev().map(String::as_str).collect();
                let value = json!({"endpoint": fields.get("endpoint"), "room_id": fields.get("room_id")});
                self.put(INDEX, &index.join("."), &value)?;
            }
            self.put(bucket.name, &parts.join("."), &Value::Object(fields))?;
            self.done = self.done.saturating_add(1);
        }
        Ok(())
    }

    fn put(&mut self, bucket: &str, key: &str, value: &Value) -> Result<(), PlaintextError> {
        self.waiting.push((format!("$KV.{bucket}.{key}"), value.to_string().into_bytes()));
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PlaintextError> {
        self.streams.put(std::mem::take(&mut self.waiting))?;
        (self.progress)(self.done);
        Ok(())
    }
}

fn field(cell: ValueRef<'_>, form: Form) -> Option<Value> {
    match cell {
        ValueRef::Text(text) if form == Form::Object => serde_json::from_slice(text).ok(),
        ValueRef::Text(text) => Some(Value::from(String::from_utf8_lossy(text))),
        ValueRef::Integer(number) => Some(Value::from(number)),
        ValueRef::Blob(bytes) => Some(Value::from(BASE64URL_NOPAD.encode(bytes))),
        ValueRef::Null | ValueRef::Real(_) => None,
    }
}
