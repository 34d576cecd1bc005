//! A restore is a rollback: what it needs, what it keeps, what it says.

use serde_json::Value;
use unibus_store::domain::Actor;
use unibus_store::error::StoreError;
use unibus_store::record::{Endpoint, Handle, RoomId, SignPub, Timestamp, User, UserRole};
use unibus_store::store::{Nonce, Store, Strength};

use crate::world::World;

fn late_comer(number: u8) -> User {
    let key = SignPub::from_bytes([number.wrapping_add(9); 32]).unwrap();
    User::new(key, Handle::parse("late.comer").unwrap(), UserRole::Member, Timestamp::MIN)
}

fn lose_the_database(world: &World) {
    for name in ["control.db", "control.db-wal", "control.db-shm"] {
        drop(std::fs::remove_file(world.path("data").join(name)));
    }
}

const RESTORE: &str = "restore --in s.snap --to sqlcipher:data/control.db --operator keys/operator.key";

#[tokio::test(flavor = "multi_thread")]
async fn going_back_behind_the_witness_needs_the_operator_and_consent() {
    let world = World::with_snapshot(20, 3);
    let store = world.serve();
    for number in 0..3 {
        store.add_user(Actor::Operator, late_comer(number)).await.unwrap();
    }
    drop(store);
    lose_the_database(&world);
    let before = world.listing();
    let refused = world.run(RESTORE).expect(7);
    assert!(
        refused.stderr.contains("at sequence 4") && refused.stderr.contains("--accept-rollback"),
        "{refused:?}"
    );
    let alone = world.run(&format!("{RESTORE} --accept-rollback")).expect(2);
    assert!(alone.stderr.contains("nobody agreed"), "{alone:?}");
    let stranger = RESTORE.replace("keys/operator.key", "other/operator.key");
    world.run(&format!("{stranger} --accept-rollback --yes")).expect(6);
    let plan = world.run(&format!("{RESTORE} --accept-rollback --json --dry-run")).expect(0).json();
    assert!(plan["plan"]["replaces"].as_str().unwrap().contains("3 later writes"), "{plan}");
    assert!(world.listing() == before);
    let hash = plan["plan"]["hash"].as_str().unwrap();
    // What was agreed to is one position: of another one it says nothing.
    let witness = std::fs::read(world.path("data/state/witness")).unwrap();
    std::fs::rename(world.path("data/state"), world.path("data/other")).unwrap();
    let moved = world.run(&format!("{RESTORE} --accept-rollback --plan {hash}")).expect(2);
    assert!(moved.stderr.contains("UB-M005"), "{moved:?}");
    std::fs::rename(world.path("data/other"), world.path("data/state")).unwrap();
    assert_eq!(std::fs::read(world.path("data/state/witness")).unwrap(), witness);
    let restored = world.run(&format!("{RESTORE} --accept-rollback --json --plan {hash}")).expect(0).json();
    assert_eq!(restored["rolled_back"]["witness"]["sequence"], 4);
    assert_eq!(restored["rolled_back"]["snapshot"]["sequence"], 1);
    let store = world.serve();
    assert!(!store.is_authorized(late_comer(0).sign_pub, Strength::Local).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_refuses_requests_that_were_signed_before_it() {
    let world = World::with_snapshot(20, 3);
    lose_the_database(&world);
    world.run(RESTORE).expect(0);
    let store = world.serve();
    let now = i64::try_from(crate::world::now().seconds()).unwrap() * 1_000_000;
    let at = |seconds: i64| Timestamp::from_micros(now + seconds * 1_000_000).unwrap();
    let signer = late_comer(1).sign_pub;
    let nonce = |byte| Nonce::from_bytes(&[byte; 16]).unwrap();
    assert!(!store.claim_nonce(signer, nonce(1), at(55), at(0)).await.unwrap(), "signed before");
    assert!(!store.claim_nonce(signer, nonce(2), at(90), at(0)).await.unwrap(), "by a clock that is ahead");
    assert!(store.claim_nonce(signer, nonce(3), at(125), at(66)).await.unwrap(), "signed after");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_superseded_store_revoked_or_removed_stays_so() {
    let world = World::with_snapshot(30, 6);
    let store = world.serve();
    let users = store.users(Strength::Local).await.unwrap();
    let active: Vec<&User> =
        users.iter().filter(|user| user.is_active() && user.role == UserRole::Member).collect();
    store.revoke_user(Actor::Operator, active[0].sign_pub, Timestamp::MIN).await.unwrap();
    // Somebody who is a plain member of some room.
    let mut removed = None;
    for user in &users {
        let endpoint = Endpoint::of(&user.sign_pub);
        let rooms = store.rooms_of(endpoint, Strength::Local).await.unwrap();
        if let Some(one) = rooms.into_iter().find(|one| one.room.owner != endpoint) {
            removed = Some((one.room.room_id, endpoint));
            break;
        }
    }
    let (room, endpoint) = removed.unwrap();
    store.remove_member(Actor::Operator, room.clone(), endpoint).await.unwrap();
    let closed = close_a_room(&store, &users, &room).await;
    drop(store);
    let unknown = SignPub::from_bytes([77; 32]).unwrap();
    std::fs::write(world.path("revoked"), format!("# left\n\n{}\n{unknown}\n", active[1].sign_pub)).unwrap();
    let restored = world
        .run(
            "restore --json --in s.snap --to sqlcipher:next/control.db --nodeset keys/nodeset \
             --operator keys/operator.key --supersede sqlcipher:data/control.db --revoked revoked",
        )
        .expect(0)
        .json();
    assert_eq!(restored["sticky"]["users_kept_revoked"], 2);
    assert_eq!(restored["sticky"]["members_kept_removed"], 1 + closed.1, "{restored}");
    assert_eq!(restored["sticky"]["rooms_kept_closed"], 1, "{restored}");
    assert_eq!(restored["sticky"]["rooms_of_which_nothing_is_known"], 0, "{restored}");
    assert_eq!(restored["sticky"]["revoked_users_added"], 1, "{restored}");
    assert_ne!(restored["state_digest"], restored["snapshot_digest"]);
    // A key that only the list knows can be added as little as any other revoked one.
    let store = world.serve_at("next");
    let again = User::new(unknown, Handle::parse("again").unwrap(), UserRole::Member, Timestamp::MIN);
    let again = store.add_user(Actor::Operator, again).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    assert!(store.room(closed.0, Strength::Local).await.unwrap().is_none());
    drop(store);
    assert_eq!(
        world.run("verify --json sqlcipher:next/control.db --nodeset keys/nodeset").expect(0).json()["dangling"],
        0
    );
    std::fs::write(world.path("revoked"), "not a key\n").unwrap();
    let bad = world
        .run("restore --in s.snap --to sqlcipher:last/control.db --nodeset keys/nodeset --operator keys/operator.key --revoked revoked")
        .expect(2);
    assert!(bad.stderr.contains("line 1"), "{bad:?}");
}

/// Removes everybody from a room, the owner last; gives which it was, and how many members it had.
async fn close_a_room(store: &impl Store, users: &[User], but: &RoomId) -> (RoomId, u64) {
    for user in users {
        let owner = Endpoint::of(&user.sign_pub);
        let rooms = store.rooms_of(owner, Strength::Local).await.unwrap();
        let Some(one) = rooms.into_iter().find(|one| one.room.owner == owner && one.room.room_id != *but)
        else {
            continue;
        };
        let room = one.room.room_id;
        let members = store.members(room.clone(), Strength::Local).await.unwrap();
        for member in members.iter().filter(|member| member.endpoint() != owner) {
            store.remove_member(Actor::Operator, room.clone(), member.endpoint()).await.unwrap();
        }
        store.remove_member(Actor::Operator, room.clone(), owner).await.unwrap();
        return (room, u64::try_from(members.len()).unwrap());
    }
    panic!("no room has an owner");
}

#[test]
fn rooms_of_which_the_superseded_store_knows_nothing_are_named() {
    let world = World::with_snapshot(20, 3);
    // Another store of the same cluster: that it has no such room does not say that it was closed.
    let make = "sqlcipher:another/control.db --nodeset keys/nodeset";
    world.run("sample --users 2 --rooms 1 --seed 9 --out another.db").expect(0);
    world.run(&format!("copy --from sqlite:another.db --to {make} --yes")).expect(0);
    let words = "restore --json --in s.snap --to sqlcipher:next/control.db --nodeset keys/nodeset \
                 --operator keys/operator.key --supersede sqlcipher:another/control.db";
    let restored = world.run(words).expect(0).json();
    let (sticky, rooms) = (&restored["sticky"], &restored["entries"]["rooms"]);
    assert_eq!((&sticky["rooms_kept_closed"], rooms), (&0.into(), &3.into()), "{restored}");
    assert_eq!(sticky["rooms_of_which_nothing_is_known"], 3, "{restored}");
    assert_eq!(sticky["of_these"].as_array().unwrap().len(), 3, "{restored}");
}

#[test]
fn a_target_that_holds_records_is_refused_and_an_empty_one_is_replaced_with_consent() {
    let world = World::with_snapshot(20, 3);
    world.run(RESTORE).expect(2);
    // An empty store, as the daemon makes one at its first start.
    lose_the_database(&world);
    std::fs::remove_dir_all(world.path("data/state")).unwrap();
    std::fs::remove_file(world.path("data/control.db.keyring")).unwrap();
    let own = unibus_keyfile::node_key::NodeKeyFile::load(&world.path("keys/alpha.key")).unwrap();
    let options = unibus_store::sqlcipher::CreateOptions::new(
        &world.path("data/control.db"),
        std::sync::Arc::new(own),
        crate::world::now(),
    );
    unibus_store::sqlcipher::NewStore::begin(options).unwrap().finish().unwrap();
    let before = world.listing();
    let alone = world.run(RESTORE).expect(2);
    assert!(alone.stderr.contains("nobody agreed"), "{alone:?}");
    assert!(world.listing() == before);
    let restored = world.run(&format!("{RESTORE} --json --yes")).expect(0).json();
    assert_eq!(restored["state_digest"], restored["snapshot_digest"]);
    assert_eq!(restored["rolled_back"], Value::Null);
    drop(world.serve());
}

#[test]
fn a_second_restore_of_the_same_state_gives_nothing_up() {
    let world = World::with_snapshot(20, 3);
    lose_the_database(&world);
    world.run(RESTORE).expect(0);
    lose_the_database(&world);
    let restored = world.run(&format!("{RESTORE} --json")).expect(0).json();
    assert_eq!(restored["rolled_back"], Value::Null);
}

#[test]
fn a_lost_node_key_is_survived_with_the_operator_key_and_a_snapshot() {
    let world = World::with_snapshot(20, 3);
    std::fs::remove_dir_all(world.path("data")).unwrap();
    std::fs::remove_file(world.path("keys/alpha.key")).unwrap();
    let words = "restore --json --in s.snap --to sqlcipher:next/control.db --nodeset keys/nodeset \
                 --operator keys/operator.key --at-rest-key-file keys/beta.key";
    let restored = world.run_without_key(words).expect(0).json();
    assert_eq!(restored["state_digest"], restored["snapshot_digest"]);
}
