use std::sync::Arc;

use unibus_keyfile::secret::BlobKey;

use super::*;
use crate::record::{
    Blob, BlobHash, Channel, Endpoint, KeyEpoch, Policy, Room, RoomKey, SealedKey, StorageName, Subject,
};
use crate::sealed_log::fixture::{self, Keys, at, node, room, sign};
use crate::sealed_log::stream::SUBJECT_PREFIX;

fn records() -> Vec<Record> {
    let names = (Subject::parse("ops.alerts").unwrap(), Channel::random());
    let owner = Endpoint::of(&sign(1));
    let key = Arc::new(BlobKey::generate());
    vec![
        fixture::user(1).into(),
        Room::new(room("operations"), names, Policy::default(), owner, at(1)).into(),
        fixture::member("operations", 1),
        RoomKey::new(room("operations"), KeyEpoch::FIRST, owner, SealedKey::from_bytes(&[9; 80]).unwrap())
            .into(),
        Blob::new(BlobHash::of(b"blob"), 4, key, StorageName::random(), at(1)).unwrap().into(),
    ]
}

fn heartbeat() -> Heartbeat {
    Heartbeat { at: at(1_234_567), keyring_version: 7, keyring_hash: DocumentHash::from_bytes([3; 32]) }
}

/// Every kind of content, puts and tombstones.
fn contents() -> Vec<Content> {
    let mut all = Vec::new();
    for record in records() {
        // As they come out of an entry: with the bytes that this version writes.
        let bytes = RecordBytes::assemble(&record.id(), record.encode().body()).unwrap();
        all.push(Content::Record { id: record.id(), bytes: Some(bytes) });
        all.push(Content::Record { id: record.id(), bytes: None });
    }
    all.push(Content::Heartbeat { node: node("alpha"), heartbeat: heartbeat() });
    all.push(Content::Import { open: true });
    all.push(Content::Import { open: false });
    all.push(Content::NonceFloor(at(42)));
    all
}

fn digest() -> StateDigest {
    StateDigest::from_bytes([5; 32])
}

fn raw(sealed: &Sealed, sequence: u64) -> Raw {
    let (subject, payload) = (sealed.subject.clone(), sealed.payload.clone());
    Raw { sequence, subject, payload, foreign_header: None, pending: 0 }
}

fn open(codec: &Codec, raw: &Raw) -> Result<Opened, EntryError> {
    codec.open(raw, &mut Zeroizing::new(Vec::new()))
}

/// Seals what no node of ours would, under its right name, at sequence 1.
fn forge(codec: &Codec, kind: u8, operation: Operation, (identity, record): (&[u8], &[u8])) -> Raw {
    let name = codec.blind(kind, identity).unwrap();
    forge_as(codec, &name, kind, operation, (identity, record))
}

fn forge_as(
    codec: &Codec,
    name: &str,
    kind: u8,
    operation: Operation,
    (identity, record): (&[u8], &[u8]),
) -> Raw {
    let plaintext = Plaintext {
        kind,
        operation,
        identity: identity.to_vec(),
        digest_after: digest(),
        record: Zeroizing::new(record.to_vec()),
    };
    let sealer = &codec.epochs[&codec.primary].sealer;
    let payload = sealer.seal(&plaintext, &codec.place(name, 1), Nonce::random()).unwrap().into();
    let subject = format!("{SUBJECT_PREFIX}{name}");
    Raw { sequence: 1, subject, payload, foreign_header: None, pending: 0 }
}

#[test]
fn every_content_opens_to_what_was_sealed() {
    let keys = Keys::new();
    let codec = keys.codec();
    let mut buffer = Zeroizing::new(Vec::new());
    for content in contents() {
        let sealed = codec.seal(&content, digest(), 17).unwrap();
        let opened = codec.open(&raw(&sealed, 17), &mut buffer).unwrap();
        let hash = match &content {
            Content::Record { bytes: Some(bytes), .. } => Some(codec.hasher().hash(bytes.as_bytes())),
            _ => None,
        };
        assert_eq!(opened, Opened { content, digest_after: digest(), epoch: Epoch::FIRST, hash });
    }
}

#[test]
fn an_entry_opens_at_its_own_sequence_and_name_only() {
    let (keys, others) = (Keys::new(), Keys::new());
    let (codec, other) = (keys.codec(), others.codec());
    for content in contents() {
        let sealed = codec.seal(&content, digest(), 17).unwrap();
        let here = raw(&sealed, 17);
        assert!(open(&codec, &here).is_ok());
        for sequence in [0, 1, 16, 18, u64::MAX] {
            let there = Raw { sequence, ..here.clone() };
            assert_eq!(open(&codec, &there), Err(EntryError::Unauthentic), "{sequence}");
        }
        let name = sealed.subject.strip_prefix(SUBJECT_PREFIX).unwrap();
        let someone = codec.seal(&Content::NonceFloor(at(1)), digest(), 17).unwrap().subject;
        let nobody = codec.blind(1, &[9; 32]).unwrap();
        let mut names = vec![
            format!("{SUBJECT_PREFIX}{nobody}"),
            format!("{SUBJECT_PREFIX}{}", name.to_ascii_uppercase()),
            format!("{SUBJECT_PREFIX}{name}a"),
            SUBJECT_PREFIX.to_owned(),
        ];
        names.extend((someone != sealed.subject).then_some(someone));
        for subject in names {
            let there = Raw { subject: subject.clone(), ..here.clone() };
            assert_eq!(open(&codec, &there), Err(EntryError::Unauthentic), "{subject}");
        }
        let elsewhere = Raw { subject: format!("$KV.OTHER.{name}"), ..here.clone() };
        assert_eq!(open(&codec, &elsewhere), Err(EntryError::Malformed("subject")));
        assert_eq!(open(&other, &here), Err(EntryError::Unauthentic), "another log's keys");
    }
}

#[test]
fn an_entry_of_another_lineage_under_the_same_keys_does_not_open() {
    let keys = Keys::new();
    let codec = keys.codec();
    let sealed = codec.seal(&Content::NonceFloor(at(1)), digest(), 1).unwrap();
    let mut restored = keys.codec();
    restored.lineage = Lineage::random();
    assert_eq!(open(&restored, &raw(&sealed, 1)), Err(EntryError::Unauthentic));
    let mut copied = keys.codec();
    copied.cluster = ClusterId::from_bytes([1; 32]);
    assert_eq!(open(&copied, &raw(&sealed, 1)), Err(EntryError::Unauthentic));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let keys = Keys::new();
    let codec = keys.codec();
    let sealed = codec.seal(&Content::Import { open: true }, digest(), 1).unwrap();
    let good = raw(&sealed, 1);
    let with = |payload: Vec<u8>| Raw { payload: payload.into(), ..good.clone() };
    for index in 0..sealed.payload.len() {
        assert!(open(&codec, &with(sealed.payload[..index].to_vec())).is_err(), "cut at {index}");
        for bit in 0..8 {
            let mut payload = sealed.payload.to_vec();
            payload[index] ^= 1 << bit;
            assert!(open(&codec, &with(payload)).is_err(), "flip at {index}.{bit}");
        }
    }
    let longer = [&sealed.payload[..], &[0]].concat();
    assert_eq!(open(&codec, &with(longer)), Err(EntryError::NotSealed));
}

#[test]
fn what_is_not_sealed_is_told_apart_from_what_does_not_open() {
    let keys = Keys::new();
    let codec = keys.codec();
    let good = raw(&codec.seal(&Content::Import { open: true }, digest(), 1).unwrap(), 1);
    let plain = fixture::user(1).encode().as_bytes().to_vec();
    for payload in [Vec::new(), b"{}".to_vec(), plain, vec![0; 292], good.payload[..291].to_vec()] {
        let raw = Raw { payload: payload.into(), ..good.clone() };
        assert_eq!(open(&codec, &raw), Err(EntryError::NotSealed));
    }
}

#[test]
fn a_message_with_a_foreign_header_is_not_even_opened() {
    let keys = Keys::new();
    let codec = keys.codec();
    let good = raw(&codec.seal(&Content::Import { open: true }, digest(), 1).unwrap(), 1);
    for header in ["KV-Operation", "Nats-Rollup", "Nats-TTL"] {
        for payload in [good.payload.clone(), Bytes::new()] {
            let raw = Raw { foreign_header: Some(header), payload, ..good.clone() };
            assert_eq!(open(&codec, &raw), Err(EntryError::ForeignHeader(header)));
        }
    }
}

#[test]
fn an_unknown_epoch_is_named_before_anything_is_tried() {
    let keys = Keys::new();
    let codec = keys.codec();
    let good = raw(&codec.seal(&Content::Import { open: true }, digest(), 1).unwrap(), 1);
    let mut payload = good.payload.to_vec();
    payload[7] = 9;
    let raw = Raw { payload: payload.into(), ..good };
    assert_eq!(open(&codec, &raw), Err(EntryError::UnknownEpoch(Epoch::from_stored(9).unwrap())));
}

#[test]
fn an_entry_of_a_retired_epoch_opens_and_the_primary_one_has_other_names() {
    let (keys, later) = (Keys::new(), Keys::new());
    let second = Epoch::FIRST.next().unwrap();
    let mut codec = keys.codec();
    let sealed = codec.seal(&Content::Import { open: true }, digest(), 1).unwrap();
    let key = later.secrets.epoch(Epoch::FIRST).unwrap();
    let (sealer, blinder) = (Sealer::new(second, key, &codec.cluster), Blinder::new(key, &codec.cluster));
    codec.epochs.insert(second, EpochCodec { sealer, blinder });
    codec.primary = second;
    assert_eq!(open(&codec, &raw(&sealed, 1)).unwrap().epoch, Epoch::FIRST);
    let again = codec.seal(&Content::Import { open: true }, digest(), 1).unwrap();
    assert_ne!(again.subject, sealed.subject);
    assert_eq!(open(&codec, &raw(&again, 1)).unwrap().epoch, second);
    // The epoch in the header says which key; the name must be of the same epoch.
    let crossed = Raw { subject: sealed.subject, ..raw(&again, 1) };
    assert_eq!(open(&codec, &crossed), Err(EntryError::Unauthentic));
}

#[test]
fn an_authentic_entry_under_the_name_of_another_is_refused() {
    let keys = Keys::new();
    let codec = keys.codec();
    let user = fixture::user(1);
    let (identity, body) = (RecordId::User(sign(1)).identity(), user.encode());
    let victim = codec.blind(1, RecordId::User(sign(2)).identity().as_slice()).unwrap();
    let planted = forge_as(&codec, &victim, 1, Operation::Put, (&identity, body.body()));
    assert_eq!(open(&codec, &planted), Err(EntryError::Malformed("name")));
    let right = forge(&codec, 1, Operation::Put, (&identity, body.body()));
    assert!(open(&codec, &right).is_ok());
    // Names that differ in kind only differ.
    let as_blob = codec.blind(5, &identity).unwrap();
    let planted = forge_as(&codec, &as_blob, 1, Operation::Put, (&identity, body.body()));
    assert_eq!(open(&codec, &planted), Err(EntryError::Malformed("name")));
}

/// Kind, operation, identity, record, and what is wrong with it.
type Case<'a> = (u8, Operation, &'a [u8], Vec<u8>, &'static str);

#[test]
fn what_is_authentic_and_yet_malformed_is_named() {
    use Operation::{Put, Tombstone};
    let keys = Keys::new();
    let codec = keys.codec();
    let alpha = b"alpha".as_slice();
    let user = RecordId::User(sign(1)).identity();
    let user_body = fixture::user(1).encode().body().to_vec();
    let mut longer_user = user_body.clone();
    longer_user.push(0);
    let beat = Content::Heartbeat { node: node("alpha"), heartbeat: heartbeat() }.body().unwrap().to_vec();
    let floor = Content::NonceFloor(at(1)).body().unwrap().to_vec();
    let changed = |bytes: &[u8], index: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[index] = byte;
        bytes
    };
    let cases: Vec<Case<'_>> = vec![
        (0, Put, b"x", vec![1], "kind"),
        (6, Put, &user, user_body.clone(), "kind"),
        (63, Put, b"", vec![1], "kind"),
        (NONCE, Put, b"x", vec![1], "kind"),
        (NONCE, Tombstone, b"x", vec![], "kind"),
        (u8::MAX, Tombstone, b"", vec![], "kind"),
        (1, Put, &user[..31], user_body.clone(), "identity"),
        (1, Tombstone, &[0; 32], vec![], "identity"),
        (2, Put, b"not a token", vec![1], "identity"),
        (3, Tombstone, b"room-without-endpoint", vec![], "identity"),
        (1, Put, &user, vec![], "record"),
        (1, Put, &user, longer_user, "record"),
        (1, Put, &user, changed(&user_body, 0, 2), "record"),
        (5, Put, &user, user_body, "record"),
        (HEARTBEAT, Tombstone, alpha, vec![], "kind"),
        (HEARTBEAT, Put, b"", beat.clone(), "identity"),
        (HEARTBEAT, Put, b"not a node", beat.clone(), "identity"),
        (HEARTBEAT, Put, &[0xff, 0xfe], beat.clone(), "identity"),
        (HEARTBEAT, Put, alpha, vec![], "heartbeat"),
        (HEARTBEAT, Put, alpha, changed(&beat, 0, 2), "heartbeat"),
        (HEARTBEAT, Put, alpha, changed(&beat, 1, 0xff), "heartbeat"),
        (HEARTBEAT, Put, alpha, beat[..beat.len() - 1].to_vec(), "heartbeat"),
        (HEARTBEAT, Put, alpha, [&beat[..], &[0]].concat(), "heartbeat"),
        (IMPORT, Put, b"x", vec![1], "kind"),
        (IMPORT, Tombstone, b"x", vec![], "kind"),
        (IMPORT, Put, b"", vec![], "kind"),
        (IMPORT, Put, b"", vec![2], "kind"),
        (IMPORT, Put, b"", vec![1, 0], "kind"),
        (NONCE_FLOOR, Tombstone, b"", vec![], "kind"),
        (NONCE_FLOOR, Put, b"x", floor.clone(), "kind"),
        (NONCE_FLOOR, Put, b"", vec![], "nonce floor"),
        (NONCE_FLOOR, Put, b"", changed(&floor, 0, 2), "nonce floor"),
        (NONCE_FLOOR, Put, b"", changed(&floor, 1, 0xff), "nonce floor"),
        (NONCE_FLOOR, Put, b"", floor[..8].to_vec(), "nonce floor"),
        (NONCE_FLOOR, Put, b"", [&floor[..], &[0]].concat(), "nonce floor"),
    ];
    for (index, (kind, operation, identity, record, what)) in cases.into_iter().enumerate() {
        let forged = forge(&codec, kind, operation, (identity, &record));
        assert_eq!(open(&codec, &forged), Err(EntryError::Malformed(what)), "case {index}");
    }
}

#[test]
fn what_is_sealed_shows_its_size_class_and_nothing_else() {
    let keys = Keys::new();
    let codec = keys.codec();
    for content in contents() {
        let (one, two) =
            (codec.seal(&content, digest(), 1).unwrap(), codec.seal(&content, digest(), 2).unwrap());
        assert_eq!(one.subject, two.subject);
        assert_ne!(one.payload, two.payload);
        // Header and tag around a plaintext of 256 bytes, whatever it says.
        assert_eq!(one.payload.len(), 20 + 256 + 16);
        // Each long enough that what is random does not hold it now and then.
        let shown = [one.subject.as_bytes(), &one.payload].concat();
        for plain in
            [&b"user 1"[..], b"operations", b"alpha", sign(1).as_bytes(), Endpoint::of(&sign(1)).as_bytes()]
        {
            assert!(!shown.windows(plain.len()).any(|window| window == plain));
        }
    }
}

#[test]
fn documents_are_named_in_clear_and_sealed_entries_are_not_taken_for_them() {
    let names = [
        DocumentName::Nodeset,
        DocumentName::Keyring,
        DocumentName::Acknowledgement(node("alpha")),
        DocumentName::Acknowledgement(node("nodeset")),
    ];
    for name in names {
        assert_eq!(DocumentName::of_subject(&name.subject(Generation::FIRST), SUBJECT_PREFIX), Some(name));
    }
    let keys = Keys::new();
    let codec = keys.codec();
    let sealed = codec.seal(&Content::Import { open: true }, digest(), 1).unwrap();
    assert_eq!(DocumentName::of_subject(&sealed.subject, SUBJECT_PREFIX), None);
    for other in
        ["", "doc", "doc.", "doc.nodeset.x", "doc.ack", "doc.ack.", "doc.ack.A B", "doc.other", "nodeset"]
    {
        assert_eq!(
            DocumentName::of_subject(&format!("{SUBJECT_PREFIX}{other}"), SUBJECT_PREFIX),
            None,
            "{other}"
        );
    }
    assert_eq!(DocumentName::of_subject("$KV.OTHER.doc.nodeset", SUBJECT_PREFIX), None);
}

#[test]
fn nothing_that_is_printed_shows_a_key_or_a_name() {
    let keys = Keys::new();
    let codec = keys.codec();
    assert_eq!(format!("{codec:?}"), "Codec(primary epoch 1, [REDACTED])");
    for content in contents() {
        let sealed = codec.seal(&content, digest(), 1).unwrap();
        let text = format!("{:?}", open(&codec, &raw(&sealed, 1)).unwrap());
        for plain in ["user 1", "operations", &sign(1).to_string()] {
            assert!(!text.contains(plain), "{text}");
        }
    }
}
