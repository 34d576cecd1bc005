use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_store::{
    error::StoreError,
    record::{MemberRole, Record, RecordBytes, RecordId, UserRole, UserStatus},
    store::{Census, ExportSink, Position},
};

use super::fixture::*;

type Items = Vec<Result<RecordBytes, StoreError>>;

fn items(bytes: &[Vec<u8>]) -> Items {
    bytes.iter().map(|bytes| Ok(RecordBytes::from_bytes(bytes).unwrap())).collect()
}

pub(crate) async fn each_write_moves_the_sequence_and_no_refusal_does(open: Open) {
    // `committed` and `refused` look at the sequence; this is one of each, several records at once among them.
    let store = populated(open).await;
    committed(&store, store.add_user(signer(1), user(9, UserRole::Member))).await;
    refused(&store, "UB-S001", store.add_user(signer(1), user(9, UserRole::Member))).await;
    let owner = member("n", 9, MemberRole::Owner);
    committed(&store, store.create_room(signer(9), room("n", 9, true), owner, Some(sealed("k")))).await;
    let keys = vec![(endpoint(9), sealed("k2"))];
    committed(&store, store.rekey(signer(9), room_id("n"), epoch(2), keys)).await;
    committed(&store, store.remove_member(signer(9), room_id("n"), endpoint(9))).await;
    committed(&store, store.revoke_user(signer(1), sign(9), at(100))).await;
}

pub(crate) async fn a_change_that_is_undone_brings_the_digest_back(open: Open) {
    let store = populated(open).await;
    let before = store.position().unwrap();
    let key = Some((epoch(1), sealed("k")));
    let between = committed(&store, store.invite(signer(2), member("r", 4, MemberRole::Member), key)).await;
    assert_ne!(between.digest, before.digest);
    let after = committed(&store, store.remove_member(signer(4), room_id("r"), endpoint(4))).await;
    assert_eq!(after.digest, before.digest);
    assert!(store.has_moved(before, 2));
    assert_eq!(after.lineage, before.lineage);
}

pub(crate) async fn an_export_is_in_canonical_order_and_adds_up_to_the_digest(open: Open) {
    let store = populated(open).await;
    store.put_blob(signer(2), blob(7)).await.unwrap();
    for name in ["a", "a-", "aa"] {
        let owner = member(name, 2, MemberRole::Owner);
        store.create_room(signer(2), room(name, 2, true), owner, Some(sealed("k"))).await.unwrap();
    }
    let kept = exported(&store);
    let ids: Vec<RecordId> = kept.records.iter().map(Record::id).collect();
    assert!(ids.is_sorted(), "canonical order");
    let hasher = StateHasher::new(&state_key());
    let mut digest = StateDigest::EMPTY;
    kept.bytes.iter().for_each(|bytes| digest.add(&hasher.hash(bytes)));
    assert_eq!(store.position().unwrap().digest, digest);
    let report = store.verify().unwrap();
    let census = report.census;
    assert_eq!([census.users, census.rooms, census.members, census.room_keys, census.blobs], [4, 4, 5, 5, 1]);
    assert_eq!(census.total(), u64::try_from(ids.len()).unwrap());
}

/// Writes a user at the first record and goes on.
struct Writing<'s> {
    store: &'s Opened,
    kept: Kept,
    runtime: tokio::runtime::Handle,
}

impl ExportSink for Writing<'_> {
    fn begin(&mut self, position: &Position, census: &Census) -> Result<(), StoreError> {
        self.kept.begin(position, census)
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        if self.kept.bytes.is_empty() {
            let (early, late) = (user(0, UserRole::Member), user(250, UserRole::Member));
            self.runtime.block_on(async {
                self.store.add_user(OPERATOR, early).await.unwrap();
                self.store.add_user(OPERATOR, late).await.unwrap();
                self.store.revoke_user(OPERATOR, sign(4), at(100)).await.unwrap();
            });
        }
        self.kept.record(id, bytes)
    }
}

pub(crate) async fn an_export_is_of_one_moment_while_writes_go_on(open: Open) {
    let store = populated(open).await;
    let before = exported(&store);
    let runtime = tokio::runtime::Handle::current();
    let (position, kept, store) = tokio::task::spawn_blocking(move || {
        let mut sink = Writing { store: &store, kept: Kept::default(), runtime };
        let position = store.export(&mut sink).unwrap();
        let kept = sink.kept;
        (position, kept, store)
    })
    .await
    .unwrap();
    assert_eq!(kept.bytes, before.bytes);
    assert_eq!(Some(position), before.begun.map(|(position, _)| position));
    assert!(store.has_moved(position, 3));
    assert_eq!(exported(&store).bytes.len(), before.bytes.len() + 2);
}

struct Stopping {
    after: usize,
}

impl ExportSink for Stopping {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, _: &RecordId, _: &[u8]) -> Result<(), StoreError> {
        self.after = self.after.checked_sub(1).ok_or(StoreError::Stopped)?;
        Ok(())
    }
}

pub(crate) async fn an_export_stops_when_told(open: Open) {
    let store = populated(open).await;
    let stopped = store.export(&mut Stopping { after: 2 });
    assert!(matches!(stopped, Err(StoreError::Stopped)), "{stopped:?}");
    committed(&store, store.add_user(OPERATOR, user(9, UserRole::Member))).await;
}

pub(crate) async fn an_import_gives_equal_records_and_digest_in_another_lineage(open: Open) {
    let (from, into) = (populated(open).await, open(state_key()));
    from.put_blob(signer(2), blob(7)).await.unwrap();
    from.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    let kept = exported(&from);
    let imported = into.import(&mut items(&kept.bytes).into_iter(), None).unwrap();
    let source = from.position().unwrap();
    assert_eq!(imported.digest, source.digest);
    assert_ne!(imported.lineage, source.lineage);
    assert_eq!(into.position().unwrap(), imported);
    assert_eq!(into.verify().unwrap().census, from.verify().unwrap().census);
    assert_eq!(exported(&into).bytes, kept.bytes);
    assert!(!into.is_authorized(sign(3), LOCAL).await, "revoked stays revoked");
    committed(
        &into,
        into.rekey(
            signer(2),
            room_id("r"),
            epoch(2),
            vec![(endpoint(2), sealed("a")), (endpoint(3), sealed("b"))],
        ),
    )
    .await;
}

pub(crate) async fn an_import_into_a_store_with_records_is_refused(open: Open) {
    let store = populated(open).await;
    let before = exported(&store).bytes;
    let refused = store.import(&mut items(&before).into_iter(), None);
    assert!(matches!(refused, Err(StoreError::NotEmpty { .. })), "{refused:?}");
    assert_eq!(exported(&store).bytes, before);
    store.verify().unwrap();
}

pub(crate) async fn an_import_out_of_order_or_twice_is_refused(open: Open) {
    let bytes = exported(&populated(open).await).bytes;
    let mut swapped = bytes.clone();
    swapped.swap(1, 2);
    let mut twice = bytes.clone();
    twice.insert(1, bytes[0].clone());
    for wrong in [swapped, twice] {
        let refused = open(state_key()).import(&mut items(&wrong).into_iter(), None);
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    }
}

pub(crate) async fn an_import_of_a_damaged_record_names_its_place(open: Open) {
    let bytes = exported(&populated(open).await).bytes;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        let last = damaged[at].len() - 1;
        damaged[at].truncate(last);
        match open(state_key()).import(&mut items(&damaged).into_iter(), None) {
            Err(StoreError::Decode { index, .. }) => assert_eq!(index, u64::try_from(at).unwrap()),
            other => panic!("record {at}: {other:?}"),
        }
    }
}

pub(crate) async fn an_import_ends_with_the_error_of_its_source(open: Open) {
    let mut wrong = items(&exported(&populated(open).await).bytes);
    wrong.insert(2, Err(StoreError::Stopped));
    let ended = open(state_key()).import(&mut wrong.into_iter(), None);
    assert!(matches!(ended, Err(StoreError::Stopped)), "{ended:?}");
}

pub(crate) async fn a_field_of_a_later_version_passes_through(open: Open) {
    let store = open(state_key());
    // User 2 as a later version would write it: one field more.
    let plain = user(2, UserRole::Member).encode();
    let mut body = plain.body().to_vec();
    body[1] += 1;
    body.extend([0x18, 0x20, 0x63, b'n', b'e', b'w']);
    let later = RecordBytes::assemble(&RecordId::User(sign(2)), &body).unwrap();
    let records = [user(1, UserRole::Admin).encode(), later.clone()];
    store.import(&mut records.into_iter().map(Ok), None).unwrap();
    assert_eq!(exported(&store).bytes[1], later.as_bytes(), "kept as it came");
    store.verify().unwrap();
    committed(&store, store.revoke_user(signer(1), sign(2), at(100))).await;
    let revoked = store.user(sign(2), LOCAL).await.unwrap().unwrap();
    assert_eq!(revoked.status, UserStatus::Revoked { at: Some(at(100)) });
    assert!(exported(&store).bytes[1].ends_with(b"\x18\x20\x63new"), "the later field is lost by a change");
}

pub(crate) async fn records_that_refer_to_nothing_are_counted(open: Open) {
    let store = open(state_key());
    let lonely: [Record; 3] = [
        room("e", 2, false).into(),
        member("f", 2, MemberRole::Owner).into(),
        unibus_store::record::RoomKey::new(room_id("g"), epoch(1), endpoint(2), sealed("k")).into(),
    ];
    store.import(&mut lonely.iter().map(|record| Ok(record.encode())), None).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.census.total(), report.dangling), (3, 3));
}

pub(crate) async fn a_write_is_seen_by_the_next_read(open: Open) {
    let store = populated(open).await;
    for number in 100..140 {
        store.add_user(signer(1), user(number, UserRole::Member)).await.unwrap();
        assert!(store.is_authorized(sign(number), LOCAL).await);
        store.revoke_user(signer(1), sign(number), at(100)).await.unwrap();
        assert!(!store.is_authorized(sign(number), unibus_store::store::Strength::Linearizable).await);
    }
}
