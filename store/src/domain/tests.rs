//! What no backend lets happen, and a rule must stand all the same.

use std::collections::BTreeMap;

use unibus_keyfile::{
    digest::{StateDigest, StateHasher},
    id::{Lineage, Sequence},
    secret::StateKey,
};

use super::*;
use crate::record::{
    Channel, DecodeError, Handle, Member, MemberRole, Policy, Room, Subject, Timestamp, User, UserRole,
};

/// A view that shows what it is told to: records under names of others, say, or nothing at all.
#[derive(Default)]
struct Shown {
    records: BTreeMap<RecordId, RecordBytes>,
    is_broken: bool,
}

impl Shown {
    fn of(records: &[Record]) -> Self {
        let records = records.iter().map(|record| (record.id(), record.encode())).collect();
        Self { records, is_broken: false }
    }
}

impl View for Shown {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        if self.is_broken {
            return Err(StoreError::Unavailable { why: "test" });
        }
        Ok(self.records.get(id).cloned())
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (id, bytes) in &self.records {
            let wanted = match (scan, id) {
                (Scan::All, _) => true,
                (Scan::Kind(kind), id) => id.kind() == kind,
                (Scan::MembersOf(room), RecordId::Member(of, _)) => of == room,
                (Scan::MembershipsOf(endpoint), RecordId::Member(_, of)) => of == endpoint,
                (Scan::RoomKeysOf(room, endpoint), RecordId::RoomKey(of, _, to)) => {
                    of == room && to == endpoint
                }
                _ => false,
            };
            if wanted && visit(id, bytes)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn at() -> Timestamp {
    Timestamp::from_micros(1).unwrap()
}

fn sign(seed: u8) -> SignPub {
    SignPub::from_bytes([seed; 32]).unwrap()
}

fn user(seed: u8) -> User {
    User::new(sign(seed), Handle::parse("somebody").unwrap(), UserRole::Admin, at())
}

fn room_id() -> RoomId {
    RoomId::parse("r").unwrap()
}

fn member(role: MemberRole) -> Member {
    Member::new(room_id(), sign(9), None, role, at())
}

fn room() -> Room {
    let names = (Subject::parse("s").unwrap(), Channel::parse("c").unwrap());
    Room::new(room_id(), names, Policy::default(), Endpoint::of(&sign(9)), at())
}

fn hasher() -> StateHasher {
    StateHasher::new(&StateKey::init_with(|key| key.fill(1)))
}

fn start() -> Position {
    let (sequence, digest) = (Sequence(7), StateDigest::EMPTY);
    Position { lineage: Lineage::from_bytes([0; 16]), sequence, digest }
}

/// The position of a store that came to hold these records in one write.
fn position_with(records: &[Record]) -> Position {
    let changes =
        records.iter().map(|record| Change { id: record.id(), before: None, after: Some(record.encode()) });
    advance(&hasher(), start(), &changes.collect::<Vec<_>>())
}

#[test]
fn a_lost_an_added_and_a_changed_record_are_found_by_the_digest() {
    let records = [Record::from(user(9)), room().into(), member(MemberRole::Owner).into()];
    let position = position_with(&records);
    assert_eq!(verify(&Shown::of(&records), &hasher(), position).unwrap().dangling, 0);
    let mut changed = user(9);
    changed.role = UserRole::Member;
    for shown in [
        Shown::of(&records[1..]),
        Shown::of(&[records.to_vec(), vec![user(8).into()]].concat()),
        Shown::of(&[vec![changed.into()], records[1..].to_vec()].concat()),
    ] {
        let found = verify(&shown, &hasher(), position);
        assert!(matches!(found, Err(StoreError::Tampered { .. })), "{found:?}");
    }
}

#[test]
fn the_same_records_under_another_state_key_do_not_pass() {
    let records = [Record::from(user(9))];
    let other = StateHasher::new(&StateKey::init_with(|key| key.fill(2)));
    let found = verify(&Shown::of(&records), &other, position_with(&records));
    assert!(matches!(found, Err(StoreError::Tampered { .. })), "{found:?}");
}

#[test]
fn the_digest_forgets_the_way_and_the_sequence_does_not() {
    let (one, two) = (Record::from(user(9)), Record::from(user(8)));
    let put = |record: &Record| Change { id: record.id(), before: None, after: Some(record.encode()) };
    let gone = |record: &Record| Change { id: record.id(), before: Some(record.encode()), after: None };
    let at_once = advance(&hasher(), start(), &[put(&two)]);
    let first = advance(&hasher(), start(), &[put(&one)]);
    let both = advance(&hasher(), first, &[put(&two)]);
    let after = advance(&hasher(), both, &[gone(&one)]);
    assert_eq!(after.digest, at_once.digest);
    assert_ne!(both.digest, at_once.digest);
    assert_eq!([at_once, first, both, after].map(|position| position.sequence.0), [8, 8, 9, 10]);
}

#[test]
fn a_record_in_anothers_place_is_tampering_wherever_it_is_read() {
    let mut shown = Shown::of(&[user(9).into()]);
    shown.records.insert(RecordId::User(sign(8)), user(9).encode());
    shown.records.insert(RecordId::Room(room_id()), user(9).encode());
    let found = [
        super::user(&shown, &sign(8)).err(),
        super::room(&shown, &room_id()).err(),
        users(&shown).err(),
        revoke_user(&shown, &Actor::Operator, &sign(8), at()).err(),
    ];
    for error in found {
        assert!(matches!(error, Some(StoreError::Tampered { .. })), "{error:?}");
    }
    assert!(!is_authorized(&shown, &sign(8)));
    assert!(is_authorized(&shown, &sign(9)));
}

#[test]
fn a_record_that_does_not_decode_is_corrupt_and_authorizes_nobody() {
    let id = RecordId::User(sign(9));
    let mut shown = Shown::of(&[user(8).into()]);
    shown.records.insert(id.clone(), RecordBytes::assemble(&id, &[1, 0xa0]).unwrap());
    assert!(!is_authorized(&shown, &sign(9)));
    let found = super::user(&shown, &sign(9));
    let Err(StoreError::CorruptRecord { kind: Kind::User, source: DecodeError::Missing { .. } }) = found
    else {
        panic!("{found:?}")
    };
    assert!(matches!(verify(&shown, &hasher(), start()), Err(StoreError::CorruptRecord { .. })));
    // The damaged record is nobody: neither added over, nor revoked, nor an admin.
    assert!(matches!(
        add_user(&shown, &Actor::Operator, &user(9)),
        Err(StoreError::AlreadyExists { kind: Kind::User })
    ));
    assert!(add_user(&shown, &Actor::Signer(sign(9)), &user(7)).is_err());
}

#[test]
fn a_view_that_cannot_read_authorizes_nobody_and_allows_nothing() {
    let mut shown = Shown::of(&[user(9).into(), room().into(), member(MemberRole::Owner).into()]);
    assert!(is_authorized(&shown, &sign(9)));
    shown.is_broken = true;
    assert!(!is_authorized(&shown, &sign(9)));
    for actor in [Actor::Operator, Actor::Signer(sign(9))] {
        for answer in [
            add_user(&shown, &actor, &user(8)),
            revoke_user(&shown, &actor, &sign(9), at()),
            create_room(&shown, &actor, &room(), &member(MemberRole::Owner), None),
            invite(&shown, &actor, &member(MemberRole::Member), None),
            remove_member(&shown, &actor, &room_id(), &Endpoint::of(&sign(9))),
        ] {
            assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        }
    }
}

#[test]
fn an_owner_that_is_a_plain_member_leaves_the_room_dangling() {
    for (role, wanted) in [(MemberRole::Owner, 0), (MemberRole::Member, 1)] {
        let records = [Record::from(room()), member(role).into()];
        let report = verify(&Shown::of(&records), &hasher(), position_with(&records)).unwrap();
        assert_eq!(report.dangling, wanted, "{role:?}");
    }
}

#[test]
fn a_member_of_an_encrypted_room_without_its_current_key_dangles() {
    let mut encrypted = room();
    encrypted.policy.encrypt = true;
    let records = [Record::from(encrypted), member(MemberRole::Owner).into()];
    let report = verify(&Shown::of(&records), &hasher(), position_with(&records)).unwrap();
    assert_eq!(report.dangling, 1);
}

#[test]
fn an_operation_gives_its_changes_in_canonical_order() {
    let mut encrypted = room();
    encrypted.policy.encrypt = true;
    let mut owner = member(MemberRole::Owner);
    owner.kex_pub = crate::record::KexPub::from_bytes([9; 32]).ok();
    let key = crate::record::SealedKey::from_bytes(b"k").unwrap();
    let shown = Shown::default();
    let changes = create_room(&shown, &Actor::Operator, &encrypted, &owner, Some(&key)).unwrap();
    let kinds: Vec<Kind> = changes.iter().map(|change| change.id.kind()).collect();
    assert_eq!(kinds, [Kind::Room, Kind::Member, Kind::RoomKey]);

    let after = |change: &Change| Record::decode(change.after.as_ref().unwrap().as_bytes()).unwrap();
    let shown = Shown::of(&changes.iter().map(after).collect::<Vec<_>>());
    let changes = remove_member(&shown, &Actor::Operator, &room_id(), &Endpoint::of(&sign(9))).unwrap();
    assert!(changes.is_sorted_by(|one, two| one.id < two.id), "{changes:?}");
    assert!(changes.iter().all(|change| change.before.is_some() && change.after.is_none()));
    assert_eq!(changes.len(), 3);
}
