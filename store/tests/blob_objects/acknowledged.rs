//! What a server says to parts that are stored, by somebody who answers in its place.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;

use super::*;

/// What is answered to a part, by its number from 1: stream and sequence.
type Answer = fn(u64) -> (&'static str, u64);

/// Answers for a server without JetStream.
struct Puppet {
    // Ends with the test.
    _server: Server,
    runtime: Runtime,
    client: async_nats::Client,
    /// What stands before the description: as the header of its message says it.
    expected: Arc<Mutex<Vec<Option<String>>>>,
}

/// Finds the settings of a true store.
fn settings() -> Value {
    let world = World::new();
    world.open(MAKE).unwrap();
    world.api("INFO", &json!({}))["config"].clone()
}

impl Puppet {
    /// Counts `surplus` parts more than came.
    fn new(answer: Answer, surplus: i64) -> Self {
        let (server, runtime) = (Server::without_jetstream(), Runtime::new().unwrap());
        let client = runtime.block_on(async_nats::connect(&server.url)).unwrap();
        let config = settings();
        let expected = Arc::new(Mutex::new(Vec::new()));
        let (speaker, noted) = (client.clone(), Arc::clone(&expected));
        let mut asked = runtime.block_on(client.subscribe(">")).unwrap();
        runtime.block_on(client.flush()).unwrap();
        runtime.spawn(async move {
            let mut parts = 0_u64;
            while let Some(message) = asked.next().await {
                let subject = message.subject.to_string();
                let Some(reply) = message.reply else { continue };
                let said = if subject.contains(".STREAM.INFO.") {
                    let asked: Value = serde_json::from_slice(&message.payload).unwrap();
                    let counted = asked["subjects_filter"].as_str().map(|subject| {
                        let count = i64::try_from(parts).unwrap() + surplus;
                        json!({ subject: count })
                    });
                    json!({ "config": config, "state": { "subjects": counted } })
                } else if subject.contains(".STREAM.PURGE.") {
                    json!({ "success": true, "purged": 0 })
                } else if subject.starts_with(&format!("$O.{BUCKET}.C.")) {
                    parts += 1;
                    let (stream, sequence) = answer(parts);
                    json!({ "stream": stream, "seq": sequence })
                } else if subject.starts_with(&format!("$O.{BUCKET}.M.")) {
                    let headers = message.headers.unwrap_or_default();
                    let last = headers.get("Nats-Expected-Last-Subject-Sequence");
                    noted.lock().unwrap().push(last.map(ToString::to_string));
                    json!({ "stream": BUCKET_STREAM, "seq": 1_000_000 })
                } else {
                    continue;
                };
                speaker.publish(reply, said.to_string().into()).await.unwrap();
            }
        });
        Self { _server: server, runtime, client, expected }
    }

    /// Puts four parts.
    fn put(&self) -> Result<Blob, BlobError> {
        let blobs = BlobStore::objects(self.client.clone(), self.runtime.handle().clone(), KEEP).unwrap();
        blobs.put(&mut &*content(200_000), LIMIT, now())
    }

    fn described(&self) -> Vec<Option<String>> {
        self.expected.lock().unwrap().clone()
    }
}

#[test]
fn a_blob_is_described_once_when_all_its_parts_stand_in_order_and_its_name_was_never_used() {
    let puppet = Puppet::new(|number| (BUCKET_STREAM, number * 3), 0);
    puppet.put().unwrap();
    assert_eq!(puppet.described(), [Some("0".to_owned())]);
}

#[test]
fn parts_that_are_acknowledged_elsewhere_or_twice_or_out_of_order_are_no_blob() {
    let wrong: [Answer; 4] = [
        |number| ("OTHER", number),
        |number| if number == 3 { ("OTHER", number) } else { (BUCKET_STREAM, number) },
        |number| (BUCKET_STREAM, number.min(2)),
        |number| (BUCKET_STREAM, 10 - number),
    ];
    for answer in wrong {
        let puppet = Puppet::new(answer, 0);
        let error = puppet.put().unwrap_err();
        let BlobError::Unavailable { why, .. } = &error else { panic!("{error:?}") };
        assert!(why.contains("stored elsewhere"), "{why}");
        assert_eq!(puppet.described(), []);
    }
}

#[test]
fn a_blob_of_which_parts_are_missing_or_too_many_at_the_end_is_none() {
    for surplus in [-1, 1] {
        let puppet = Puppet::new(|number| (BUCKET_STREAM, number), surplus);
        let error = puppet.put().unwrap_err();
        let found = u64::try_from(4 + surplus).unwrap();
        let is_told = matches!(&error, BlobError::Parts { expected: 4, found: is, .. } if *is == found);
        assert!(is_told, "{error:?}");
        assert_eq!(puppet.described(), []);
    }
}
