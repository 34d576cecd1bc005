use proptest::prelude::*;
use unibus_keyfile::secret::BlobKey;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn sign(seed: u8) -> SignPub {
    SignPub::from_bytes([seed; 32]).unwrap()
}

fn room_id() -> RoomId {
    RoomId::parse("room-1").unwrap()
}

fn user() -> User {
    User::new(sign(9), Handle::parse("canary-handle").unwrap(), UserRole::Admin, at(1))
}

fn room() -> Room {
    let names = (Subject::parse("canary.subject").unwrap(), Channel::parse("canary-channel").unwrap());
    let policy = Policy { encrypt: true, persist: false, sign_msgs: true };
    Room::new(room_id(), names, policy, Endpoint::of(&sign(9)), at(2))
}

fn member() -> Member {
    Member::new(room_id(), sign(9), KexPub::from_bytes([9; 32]).ok(), MemberRole::Owner, at(3))
}

fn room_key() -> RoomKey {
    let sealed = SealedKey::from_bytes(b"canary-sealed").unwrap();
    RoomKey::new(room_id(), KeyEpoch::FIRST, Endpoint::of(&sign(9)), sealed)
}

fn blob() -> Blob {
    let (key, name) = (BlobKey::init_with(|key| key.fill(0xcc)).into(), StorageName::from_bytes([0xdd; 16]));
    Blob::new(BlobHash::of(b"content"), 7, key, name, at(4)).unwrap()
}

fn one_of_each() -> [Record; 5] {
    let mut revoked = user();
    revoked.status = UserStatus::Revoked { at: Some(at(5)) };
    [revoked.into(), room().into(), member().into(), room_key().into(), blob().into()]
}

/// A user's record with this CBOR map as its body.
fn user_with(map: &[u8]) -> Result<Record, DecodeError> {
    let body = [&[FORMAT_VERSION], map].concat();
    let bytes = RecordBytes::assemble(&RecordId::User(sign(9)), &body).unwrap();
    Record::decode(bytes.as_bytes())
}

const KIND: Kind = Kind::User;

#[test]
fn each_kind_survives_its_bytes() {
    for record in one_of_each() {
        let bytes = record.encode();
        assert_eq!(Record::decode(bytes.as_bytes()), Ok(record.clone()));
        assert_eq!(bytes.id().unwrap(), record.id());
        assert_eq!(RecordBytes::assemble(&record.id(), bytes.body()).unwrap(), bytes);
    }
}

#[test]
fn the_bytes_of_a_user_are_these() {
    // Written out by hand from SPEC store, sections 1.2 to 1.4.
    let mut wanted = vec![1, 0, 0, 0, 32];
    wanted.extend([9; 32]);
    wanted.extend([1, 0xa4, 0x00, 0x6d]);
    wanted.extend(b"canary-handle");
    wanted.extend([0x01, 0x01, 0x02, 0x00, 0x03, 0x01]);
    assert_eq!(user().encode().as_bytes(), wanted);
}

#[test]
fn a_record_cut_anywhere_or_with_a_byte_more_is_refused() {
    for record in one_of_each() {
        let bytes = record.encode();
        let bytes = bytes.as_bytes();
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err(), "{record:?} cut at {cut}");
        }
        let trailing = DecodeError::Trailing { kind: record.id().kind(), count: 1 };
        assert_eq!(Record::decode(&[bytes, &[0]].concat()), Err(trailing));
    }
}

#[test]
fn a_flipped_bit_never_gives_the_same_record() {
    for record in one_of_each() {
        let bytes = record.encode();
        for at in 0..bytes.as_bytes().len() * 8 {
            let mut flipped = bytes.as_bytes().to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_ne!(Record::decode(&flipped), Ok(record.clone()), "{record:?} bit {at}");
        }
    }
}

#[test]
fn a_field_that_is_missing_is_named() {
    assert_eq!(user_with(&[0xa0]), Err(DecodeError::Missing { kind: KIND, field: "handle" }));
    let no_time = [0xa3, 0, 0x61, b'a', 1, 0, 2, 0];
    assert_eq!(user_with(&no_time), Err(DecodeError::Missing { kind: KIND, field: "created_at" }));
}

#[test]
fn a_field_that_breaks_its_rule_is_named() {
    let control = [0xa4, 0, 0x61, b'\n', 1, 0, 2, 0, 3, 0];
    let Err(DecodeError::Field { field: "handle", source: Some(FieldError::Form { .. }), .. }) =
        user_with(&control)
    else {
        panic!("a control character in a handle")
    };
    for (map, field) in [
        (&[0xa4, 0, 0x61, b'a', 1, 2, 2, 0, 3, 0][..], "role"),
        (&[0xa4, 0, 0x61, b'a', 1, 0, 2, 2, 3, 0], "status"),
        (&[0xa4, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0x20], "created_at"),
        (&[0xa4, 0, 0x41, b'a', 1, 0, 2, 0, 3, 0], "handle"),
        (&[0xa5, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 4, 0], "revoked_at"),
    ] {
        let found = user_with(map);
        assert!(
            matches!(found, Err(DecodeError::Field { field: named, .. }) if named == field),
            "{field}: {found:?}"
        );
    }
}

#[test]
fn a_field_twice_or_out_of_order_is_refused() {
    let twice = [0xa5, 0, 0x61, b'a', 1, 0, 1, 1, 2, 0, 3, 0];
    assert_eq!(user_with(&twice), Err(DecodeError::Order { kind: KIND, key: 1 }));
    let swapped = [0xa4, 0, 0x61, b'a', 2, 0, 1, 0, 3, 0];
    assert_eq!(user_with(&swapped), Err(DecodeError::Order { kind: KIND, key: 1 }));
    let unknown_twice = [0xa6, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 9, 0, 9, 0];
    assert_eq!(user_with(&unknown_twice), Err(DecodeError::Order { kind: KIND, key: 9 }));
}

#[test]
fn indefinite_lengths_are_refused() {
    let map = [0xbf, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 0xff];
    assert_eq!(user_with(&map), Err(DecodeError::Indefinite { kind: KIND, offset: 0 }));
    let text = [0xa4, 0, 0x7f, 0x61, b'a', 0xff, 1, 0, 2, 0, 3, 0];
    assert_eq!(user_with(&text), Err(DecodeError::Indefinite { kind: KIND, offset: 2 }));
    let unknown = [0xa5, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 9, 0x9f, 0xff];
    assert!(matches!(user_with(&unknown), Err(DecodeError::Indefinite { kind: KIND, .. })));
}

#[test]
fn a_second_spelling_of_the_same_value_is_refused() {
    let canonical = [0xa4, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0];
    assert!(user_with(&canonical).is_ok());
    for longer in [
        &[0xa4, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0x18, 0][..],
        &[0xa4, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0x1b, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xa4, 0, 0x61, b'a', 1, 0x18, 0, 2, 0, 3, 0],
        &[0xa4, 0, 0x78, 1, b'a', 1, 0, 2, 0, 3, 0],
        &[0xa4, 0x18, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0],
        &[0xb8, 4, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0],
        &[0xa5, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 0x18, 9, 0],
    ] {
        assert_eq!(user_with(longer), Err(DecodeError::NotCanonical { kind: KIND }), "{longer:02x?}");
    }
}

#[test]
fn keys_that_are_not_unsigned_integers_are_refused() {
    let negative = [0xa5, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 0x20, 0];
    let text = [0xa5, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0, 0x61, b'x', 0];
    for map in [&negative[..], &text] {
        assert_eq!(user_with(map), Err(DecodeError::Cbor { kind: KIND, offset: 10 }));
    }
}

#[test]
fn a_map_that_announces_more_than_is_there_is_refused_at_once() {
    let huge = [0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert!(matches!(user_with(&huge), Err(DecodeError::Cbor { .. })));
    let huge_inside = [0xa1, 9, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(user_with(&huge_inside), Err(DecodeError::Cbor { .. })));
    let deep = [&[0xa1, 9][..], &[0x81; 60_000], &[0]].concat();
    assert!(matches!(user_with(&deep), Err(DecodeError::Cbor { .. })));
}

#[test]
fn a_field_of_a_later_version_is_skipped_and_survives_a_change() {
    let mut map = vec![0xa6, 0, 0x61, b'a', 1, 0, 2, 0, 3, 0];
    let later = [7, 0x82, 0x61, b'x', 0xa1, 0, 0xf6, 0x19, 0x01, 0x00, 0x42, 1, 2];
    map.extend(later);
    let Ok(Record::User(mut read)) = user_with(&map) else { panic!("a later field") };
    assert_eq!(read.handle.as_str(), "a");
    read.status = UserStatus::Revoked { at: Some(at(6)) };
    let bytes = read.encode();
    assert!(bytes.as_bytes().ends_with(&later), "the later field is gone");
    assert_eq!(Record::decode(bytes.as_bytes()), Ok(read.into()));
}

#[test]
fn another_version_is_refused_by_number() {
    let bytes = RecordBytes::assemble(&RecordId::User(sign(9)), &[2, 0xa0]).unwrap();
    assert_eq!(Record::decode(bytes.as_bytes()), Err(DecodeError::Version { found: 2, known: 1 }));
}

#[test]
fn a_record_of_more_than_64_kib_is_refused() {
    let found = RECORD_MAX_BYTES + 1;
    let refused = DecodeError::TooLong { found, limit: RECORD_MAX_BYTES };
    assert_eq!(Record::decode(&vec![1; found]), Err(refused.clone()));
    let head = user().encode().as_bytes().len() - user().encode().body().len();
    let body = vec![0; found - head];
    assert_eq!(RecordBytes::assemble(&user().id(), &body), Err(refused));
    assert!(RecordBytes::assemble(&user().id(), &body[1..]).is_ok());
}

#[test]
fn the_greatest_record_fits() {
    let sealed = SealedKey::from_bytes(&[1; SEALED_KEY_MAX_BYTES]).unwrap();
    let id = RoomId::parse(&"r".repeat(TOKEN_MAX_BYTES)).unwrap();
    let key: Record = RoomKey::new(id, KeyEpoch::MAX, Endpoint::of(&sign(1)), sealed).into();
    assert_eq!(Record::decode(key.encode().as_bytes()), Ok(key));
}

#[test]
fn a_buffer_never_grows_while_a_record_is_written() {
    let longest = "x".repeat(256);
    let names = (Subject::parse(&longest).unwrap(), Channel::parse(&longest[..64]).unwrap());
    let id = RoomId::parse(&longest[..64]).unwrap();
    let mut revoked =
        User::new(sign(9), Handle::parse(&longest[..128]).unwrap(), UserRole::Admin, Timestamp::MAX);
    revoked.status = UserStatus::Revoked { at: Some(Timestamp::MAX) };
    let mut room = Room::new(id.clone(), names, Policy::default(), Endpoint::of(&sign(9)), Timestamp::MAX);
    room.key_epoch = KeyEpoch::MAX;
    let kex = KexPub::from_bytes([9; 32]).ok();
    let member = Member::new(id.clone(), sign(9), kex, MemberRole::Owner, Timestamp::MAX);
    let sealed = SealedKey::from_bytes(&[1; SEALED_KEY_MAX_BYTES]).unwrap();
    let key = RoomKey::new(id, KeyEpoch::MAX, Endpoint::of(&sign(9)), sealed);
    let mut blob = blob();
    blob.created_at = Timestamp::MAX;
    fn fits(record: &impl RecordBody) {
        let mut body = Vec::new();
        record.write_body(&mut body);
        assert!(body.len() <= record.body_max_bytes(), "{} of {}", body.len(), record.body_max_bytes());
    }
    fits(&revoked);
    fits(&room);
    fits(&member);
    fits(&key);
    fits(&blob);
}

#[test]
fn an_unknown_kind_is_refused_by_number() {
    for kind in [0, 6, 255] {
        let mut bytes = user().encode().as_bytes().to_vec();
        bytes[0] = kind;
        assert_eq!(Record::decode(&bytes), Err(DecodeError::Kind { found: kind }));
    }
}

#[test]
fn a_body_under_another_kind_or_identity_is_not_taken_for_its_own() {
    for body_of in one_of_each() {
        for id_of in one_of_each() {
            if body_of.id().kind() != id_of.id().kind() {
                let bytes = RecordBytes::assemble(&id_of.id(), body_of.encode().body()).unwrap();
                assert!(Record::decode(bytes.as_bytes()).is_err(), "{body_of:?} as {id_of:?}");
            }
        }
    }
}

#[test]
fn a_member_under_another_endpoint_is_refused() {
    let id = RecordId::Member(room_id(), Endpoint::of(&sign(8)));
    let bytes = RecordBytes::assemble(&id, member().encode().body()).unwrap();
    let source = Some(FieldError::EndpointMismatch);
    let wanted = DecodeError::Field { kind: Kind::Member, field: "sign_pub", source };
    assert_eq!(Record::decode(bytes.as_bytes()), Err(wanted));
    assert_eq!(member().expect_endpoint(&Endpoint::of(&sign(8))), Err(FieldError::EndpointMismatch));
}

#[test]
fn debug_shows_neither_names_nor_keys() {
    let mut shown = String::new();
    for record in one_of_each() {
        shown.push_str(&format!("{record:?} {:?} {:?} ", record.id(), record.encode()));
    }
    let (user, room) = (user(), room());
    shown.push_str(&format!("{:?} {:?} {:?} {:?}", user.handle, room.subject, room.channel, room.room_id));
    shown.push_str(&format!("{:?} {:?} {:?}", user.sign_pub, room.owner, member().kex_pub));
    shown.push_str(&format!("{:?} {:?} {:?}", room_key().sealed, blob().key, blob().storage_name));
    let endpoint = room.owner.to_string();
    for secret in [
        "canary",
        "room-1",
        &"09".repeat(6),
        &"cc".repeat(6),
        &"dd".repeat(6),
        "9, 9",
        "204, 204",
        &endpoint,
        &endpoint[..8],
    ] {
        assert!(!shown.contains(secret), "`{secret}` in {shown}");
    }
    assert!(shown.contains("User#") && shown.contains("RoomKey#"), "{shown}");
}

#[test]
fn equal_things_have_equal_markers_and_different_things_do_not() {
    assert_eq!(format!("{:?}", room_id()), format!("{:?}", room_id()));
    assert_ne!(format!("{:?}", room_id()), format!("{:?}", RoomId::parse("room-2").unwrap()));
}

#[test]
fn room_keys_count_from_1_and_fit_sqlite() {
    assert!(KeyEpoch::new(0).is_err());
    assert_eq!(KeyEpoch::FIRST.next(), Some(KeyEpoch::new(2).unwrap()));
    assert_eq!(KeyEpoch::MAX.next(), None);
    assert_eq!(i64::try_from(KeyEpoch::MAX.get()), Ok(i64::MAX));
}

#[test]
fn an_unknown_bit_of_a_policy_is_refused() {
    let mut bytes = room().encode().as_bytes().to_vec();
    let at = bytes.windows(3).position(|window| window == [2, 5, 3]).unwrap() + 1;
    bytes[at] = 8;
    let wanted = Some(FieldError::OutOfRange { field: "policy" });
    assert_eq!(
        Record::decode(&bytes),
        Err(DecodeError::Field { kind: Kind::Room, field: "policy", source: wanted })
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        start in 0_usize..5, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    ) {
        let mut bytes = one_of_each()[start].encode().as_bytes().to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(record) = Record::decode(&bytes) {
            let again = record.encode();
            prop_assert_eq!(again.as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let body = RecordBytes::assemble(&RecordId::User(sign(9)), &bytes).unwrap();
        let _ = (Record::decode(&bytes).is_ok(), Record::decode(body.as_bytes()).is_ok());
    }
}

/// The rows of the tables under a heading of the specification, as trimmed cells.
fn table_under(heading: &str) -> Vec<Vec<&'static str>> {
    let spec = include_str!("../../SPEC.md");
    let (_, section) = spec.split_once(heading).unwrap();
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_specification_has_the_numbers_of_the_code() {
    let version = format!("`{FORMAT_VERSION}`");
    assert!(table_under("### 1.2 Layout").iter().any(|row| row[3] == "format version" && row[4] == version));
    let spec = include_str!("../../SPEC.md");
    assert!(spec.contains(&format!("at most `{RECORD_MAX_BYTES}` bytes")));
    let values = table_under("### 1.4 Values");
    for (field, limit) in [
        ("`handle`", HANDLE_MAX_BYTES),
        ("`subject`", SUBJECT_MAX_BYTES),
        ("`room_id`, `channel`", TOKEN_MAX_BYTES),
        ("`sealed`", SEALED_KEY_MAX_BYTES),
    ] {
        let row = values.iter().find(|row| row[0] == field).unwrap();
        assert!(row[1].starts_with(&format!("1 to `{limit}`")), "{row:?}");
    }
    let kinds: Vec<_> =
        Kind::ALL.iter().map(|kind| vec![kind.number().to_string(), kind.to_string()]).collect();
    assert_eq!(table_under("### 2.1 Kinds")[1..], kinds);
    assert!(spec.contains(&format!("A nonce has 1 to\n`{}` bytes", crate::store::NONCE_MAX_BYTES)));
}

#[test]
fn the_specification_has_the_fields_of_the_code() {
    let rows = table_under("### 1.3 Body");
    for record in one_of_each() {
        let kind = record.id().kind();
        let bytes = record.encode();
        let wanted = rows.iter().filter(|row| row[0] == kind.as_str());
        let wanted: Vec<u64> = wanted.map(|row| row[1].parse().unwrap()).collect();
        let reader = cbor::BodyReader::new(kind, bytes.body(), u64::MAX).unwrap();
        assert_eq!(reader.keys(), wanted, "{kind}");
        // A field that is optional in the table and in nobody's code, or the other way round.
        for row in rows.iter().filter(|row| row[0] == kind.as_str()) {
            let without = without_field(bytes.body(), row[1].parse().unwrap());
            let bytes = RecordBytes::assemble(&record.id(), &without).unwrap();
            let found = Record::decode(bytes.as_bytes());
            let is_optional = row[4].starts_with("yes");
            assert_eq!(found.is_ok(), is_optional, "{kind} without {}: {found:?}", row[2]);
        }
    }
}

/// A body whose map lacks one of its pairs; keys are below 24 here, and so is the number of pairs.
fn without_field(body: &[u8], key: u8) -> Vec<u8> {
    let mut decoder = minicbor::Decoder::new(&body[1..]);
    decoder.map().unwrap();
    let mut out = vec![body[0], body[1] - 1];
    while decoder.position() < body.len() - 1 {
        let from = decoder.position();
        let found = decoder.u8().unwrap();
        decoder.skip().unwrap();
        if found != key {
            out.extend(&body[1 + from..=decoder.position()]);
        }
    }
    out
}
