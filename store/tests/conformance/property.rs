//! Random histories against the model: every answer, every listing, the sequence and the digest.

use std::collections::BTreeSet;

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_store::{
    record::{Endpoint, MemberRole, Record, RoomKey, SealedKey, UserRole, UserStatus},
    store::Actor as StoreActor,
};

use super::{
    fixture::*,
    model::{Actor, Keys, Model, Operation, Person, Place, Who},
    nonces::nonce,
};

const PEOPLE: Who = 5;
/// Ids of which one begins with the other, so that a scan which runs over its end is seen.
const ROOMS: [&str; 3] = ["x", "x-", "xx"];

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![1 => Just(None), 3 => (0..PEOPLE).prop_map(Some)]
}

fn keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        6 => Just(Keys::AllMembers),
        1 => Just(Keys::WithoutTheFirst),
        1 => (0..PEOPLE).prop_map(Keys::AlsoFor),
        1 => Just(Keys::TwiceForTheFirst),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let (who, room) = (|| 0..PEOPLE, || 0..3_u8);
    // More right than wrong, so that histories get somewhere.
    let likely = || prop::bool::weighted(0.8);
    prop_oneof![
        4 => (actor(), who(), any::<bool>()).prop_map(|(actor, who, admin)| Operation::AddUser { actor, who, admin }),
        1 => (actor(), who(), any::<u8>()).prop_map(|(actor, who, second)| Operation::Revoke { actor, who, second }),
        4 => (who(), prop::option::weighted(0.2, actor()), room(), likely(), likely()).prop_map(
            |(owner, actor, room, encrypt, right)| Operation::CreateRoom {
                actor: actor.unwrap_or(Some(owner)), room, owner, encrypt, with_key: encrypt == right,
            }
        ),
        6 => (actor(), room(), who(), any::<bool>(), prop::option::weighted(0.8, 1..4_u64)).prop_map(
            |(actor, room, who, as_owner, key_for)| Operation::Invite { actor, room, who, as_owner, key_for }
        ),
        3 => (actor(), room(), who()).prop_map(|(actor, room, who)| Operation::Remove { actor, room, who }),
        4 => (actor(), room(), 1..5_u64, keys()).prop_map(
            |(actor, room, epoch, keys)| Operation::Rekey { actor, room, epoch, keys }
        ),
        1 => (actor(), any::<u8>()).prop_map(|(actor, number)| Operation::PutBlob { actor, number: number % 4 }),
        // At most eight nonces: as many as every backend forgets in one go once they have expired.
        2 => (0..4_u8, 0..2_u8, 0..40_u8, 0..40_u8).prop_map(
            |(who, nonce, expires, now)| Operation::Claim { who, nonce, expires, now }
        ),
    ]
}

fn as_store_actor(actor: Actor) -> StoreActor {
    actor.map_or(OPERATOR, |who| signer(person(who)))
}

/// The fixture's number of a person; far from 0, which is a weak key.
fn person(who: Who) -> u8 {
    who + 1
}

fn rank(who: Who) -> usize {
    (0..PEOPLE).filter(|other| endpoint(person(*other)) < endpoint(person(who))).count()
}

fn role(owner: bool) -> MemberRole {
    if owner { MemberRole::Owner } else { MemberRole::Member }
}

/// A sealed key tells which write brought it, so that an old one left in place is seen.
fn key_of(write: u64, who: Who) -> SealedKey {
    sealed(&format!("write {write} for {who}"))
}

fn rekey_keys(place: Option<&Place>, keys: Keys, write: u64) -> Vec<(Endpoint, SealedKey)> {
    let mut people: Vec<Who> = place.map(|place| place.people.keys().copied().collect()).unwrap_or_default();
    match keys {
        Keys::AllMembers => {}
        Keys::WithoutTheFirst => drop(people.drain(..1.min(people.len()))),
        Keys::AlsoFor(who) => people.push(who),
        Keys::TwiceForTheFirst => people.extend(people.first().copied()),
    }
    people.into_iter().map(|who| (endpoint(person(who)), key_of(write, who))).collect()
}

/// Asks the store, and gives its answer in the model's words.
async fn ask(store: &Opened, model: &Model, operation: &Operation) -> Result<(), &'static str> {
    let write = model.writes;
    let answer = match *operation {
        Operation::AddUser { actor, who, admin } => {
            let role = if admin { UserRole::Admin } else { UserRole::Member };
            store.add_user(as_store_actor(actor), user(person(who), role)).await
        }
        Operation::Revoke { actor, who, second } => {
            store.revoke_user(as_store_actor(actor), sign(person(who)), at(i64::from(second))).await
        }
        Operation::CreateRoom { actor, room: number, owner, encrypt, with_key } => {
            let name = ROOMS[usize::from(number)];
            let key = with_key.then(|| key_of(write, owner));
            let owner = person(owner);
            let (room, owner) = (room(name, owner, encrypt), member(name, owner, MemberRole::Owner));
            store.create_room(as_store_actor(actor), room, owner, key).await
        }
        Operation::Invite { actor, room, who, as_owner, key_for } => {
            let key = key_for.map(|number| (epoch(number), key_of(write, who)));
            let guest = member(ROOMS[usize::from(room)], person(who), role(as_owner));
            store.invite(as_store_actor(actor), guest, key).await
        }
        Operation::Remove { actor, room, who } => {
            let room = room_id(ROOMS[usize::from(room)]);
            store.remove_member(as_store_actor(actor), room, endpoint(person(who))).await
        }
        Operation::Rekey { actor, room, epoch: number, keys } => {
            let keys = rekey_keys(model.rooms.get(&room), keys, write);
            let room = room_id(ROOMS[usize::from(room)]);
            store.rekey(as_store_actor(actor), room, epoch(number), keys).await
        }
        Operation::PutBlob { actor, number } => store.put_blob(as_store_actor(actor), blob(number)).await,
        Operation::Claim { who, nonce: number, expires, now } => {
            let name = nonce(&format!("nonce {number}"));
            let (expires, now) = (at(i64::from(expires)), at(i64::from(now)));
            match store.claim_nonce(sign(person(who)), name, expires, now).await {
                Ok(true) => Ok(()),
                Ok(false) => return Err("false"),
                Err(error) => Err(error),
            }
        }
    };
    answer.map_err(|error| error.code())
}

/// The records that the model says are there.
fn records(model: &Model) -> Vec<Record> {
    let users = model.users.iter().map(|(who, Person { admin, revoked })| {
        let mut user = user(person(*who), if *admin { UserRole::Admin } else { UserRole::Member });
        if let Some(second) = revoked {
            user.status = UserStatus::Revoked { at: Some(at(i64::from(*second))) };
        }
        Record::from(user)
    });
    let mut records: Vec<Record> = users.collect();
    for (number, place) in &model.rooms {
        let name = ROOMS[usize::from(*number)];
        let mut room = room(name, person(place.named_owner), place.encrypt);
        room.key_epoch = epoch(place.epoch);
        records.push(room.into());
        let people = place.people.iter();
        records.extend(people.map(|(who, owner)| Record::from(member(name, person(*who), role(*owner)))));
        records.extend(place.keys.iter().map(|((number, who), write)| {
            let (epoch, holder) = (epoch(*number), endpoint(person(*who)));
            Record::from(RoomKey::new(room_id(name), epoch, holder, key_of(*write, *who)))
        }));
    }
    records.extend(model.blobs.iter().map(|number| Record::from(blob(*number))));
    records.sort_by_key(Record::id);
    records
}

fn digest_of(records: &[Record]) -> StateDigest {
    let hasher = StateHasher::new(&state_key());
    let mut digest = StateDigest::EMPTY;
    records.iter().for_each(|record| digest.add(&hasher.hash(record.encode().as_bytes())));
    digest
}

/// What readers see of the store is what the model holds.
async fn same_reads(store: &Opened, model: &Model) -> Result<(), TestCaseError> {
    let listed = store.users(LOCAL).await.unwrap();
    prop_assert_eq!(listed.len(), model.users.len());
    for who in 0..PEOPLE {
        let key = sign(person(who));
        prop_assert_eq!(store.is_authorized(key, LOCAL).await, model.active(who));
        prop_assert_eq!(store.user(key, LOCAL).await.unwrap().is_some(), model.users.contains_key(&who));
        let mine = model.rooms.iter().filter(|(_, place)| place.people.contains_key(&who));
        let mine: BTreeSet<&str> = mine.map(|(number, _)| ROOMS[usize::from(*number)]).collect();
        let found = store.rooms_of(endpoint(person(who)), LOCAL).await.unwrap();
        let names: BTreeSet<&str> = found.iter().map(|one| one.room.room_id.as_str()).collect();
        prop_assert_eq!(&names, &mine);
        let channels = store.channels_of(endpoint(person(who)), LOCAL).await.unwrap();
        prop_assert_eq!(channels.len(), if model.active(who) { mine.len() } else { 0 });
    }
    for (number, name) in (0..).zip(ROOMS) {
        let place = model.rooms.get(&number);
        let found = store.members(room_id(name), LOCAL).await.unwrap();
        prop_assert_eq!(found.len(), place.map_or(0, |place| place.people.len()));
        for who in 0..PEOPLE {
            let key = store.room_key(room_id(name), endpoint(person(who)), None, LOCAL).await.unwrap();
            let wanted = place.and_then(|place| place.keys.get(&(place.epoch, who)));
            prop_assert_eq!(key.map(|key| key.sealed), wanted.map(|write| key_of(*write, who)));
        }
    }
    Ok(())
}

async fn agrees(store: &Opened, history: &[Operation]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let start = store.position().unwrap();
    for operation in history {
        let found = ask(store, &model, operation).await;
        let wanted = model.apply(operation, rank);
        prop_assert_eq!(found, wanted, "{:?}", operation);
        let position = store.position().unwrap();
        // Where nonces do not count, the model's number says nothing.
        prop_assert!(!store.counts_nonces() || store.has_moved(start, model.writes), "{:?}", operation);
        prop_assert_eq!(position.digest, digest_of(&records(&model)), "{:?}", operation);
    }
    same_reads(store, &model).await?;
    let kept = exported(store);
    prop_assert!(kept.records == records(&model), "an export differs from the model");
    let report = store.verify().unwrap();
    prop_assert_eq!((report.position, report.dangling), (store.position().unwrap(), 0));
    Ok(())
}

/// Holds `cases` random histories against the model, each on a store of its own.
pub(crate) fn histories_agree(open: Open, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let histories = prop::collection::vec(operation(), 1..60);
    let outcome = TestRunner::new(config).run(&histories, |history| {
        let store = open(state_key());
        runtime.block_on(agrees(&store, &history))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
