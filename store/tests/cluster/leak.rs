//! Nothing readable on any node's disk, whatever the server itself encrypts, running or stopped.

use unibus_store::record::{
    Channel, Endpoint, Handle, KexPub, KeyEpoch, Member, MemberRole, Policy, Room, RoomId, SealedKey,
    Subject, User, UserRole,
};
use unibus_store::sealed_log::SealedLog;
use unibus_store::store::{Actor, Nonce, Store};
use unibus_tests::{Canaries, Cipher, Setup};

use super::fixture::*;

/// Writes a record of each kind, each field of which is marked, changes and removes some.
async fn fill(log: &SealedLog, canaries: &mut Canaries) {
    for number in 0..12 {
        let handle = Handle::parse(&canaries.word("handle")).unwrap();
        canaries.add("key", *sign(number).as_bytes());
        canaries.add("endpoint", *Endpoint::of(&sign(number)).as_bytes());
        log.add_user(Actor::Operator, User::new(sign(number), handle, UserRole::Member, clock()))
            .await
            .unwrap();
    }
    for number in 0..4 {
        let id = RoomId::parse(&canaries.word("room")).unwrap();
        let subject = Subject::parse(&canaries.word("subject")).unwrap();
        let channel = Channel::parse(&canaries.word("channel")).unwrap();
        let policy = Policy { encrypt: true, persist: true, sign_msgs: true };
        let room = Room::new(id.clone(), (subject, channel), policy, Endpoint::of(&sign(number)), clock());
        let kex = KexPub::from_bytes([0x40 + u8::try_from(number).unwrap(); 32]).unwrap();
        let owner = Member::new(id.clone(), sign(number), Some(kex), MemberRole::Owner, clock());
        let key =
            |canaries: &mut Canaries| SealedKey::from_bytes(canaries.word("sealed").as_bytes()).unwrap();
        log.create_room(Actor::Signer(sign(number)), room, owner, Some(key(canaries))).await.unwrap();
        let guest = Member::new(id.clone(), sign(number + 5), Some(kex), MemberRole::Member, clock());
        let first = Some((KeyEpoch::FIRST, key(canaries)));
        log.invite(Actor::Signer(sign(number)), guest, first).await.unwrap();
        let keys = [number, number + 5].map(|of| (Endpoint::of(&sign(of)), key(canaries)));
        log.rekey(Actor::Operator, id.clone(), KeyEpoch::new(2).unwrap(), keys.to_vec()).await.unwrap();
        log.remove_member(Actor::Operator, id, Endpoint::of(&sign(number + 5))).await.unwrap();
    }
    log.revoke_user(Actor::Operator, sign(11), clock()).await.unwrap();
    let nonce = Nonce::from_bytes(canaries.word("nonce").as_bytes()).unwrap();
    let minute = std::time::Duration::from_secs(60);
    assert!(log.claim_nonce(sign(1), nonce, clock().plus(minute), clock()).await.unwrap());
}

async fn scanned(cipher: Option<Cipher>) {
    let setup = Setup::of(3).without_proxies();
    let setup = cipher.map_or(setup, |cipher| setup.cipher(cipher));
    let mut trio = Trio::on(setup.start());
    let logs = trio.open_all();
    let mut canaries = Canaries::new();
    fill(&logs[1], &mut canaries).await;
    all_agree(&logs).await;
    let folders = [trio.cluster.folder().to_path_buf(), trio.folder.path().to_path_buf()];
    let roots: Vec<_> = folders.iter().map(std::path::PathBuf::as_path).collect();
    canaries.assert_absent(&roots);
    // What a clean stop writes: indexes and snapshots of the raft groups.
    drop(logs);
    for node in 0..3 {
        trio.cluster.stop(node);
    }
    canaries.assert_absent(&roots);
    for node in 0..3 {
        trio.cluster.start(node);
    }
    trio.cluster.wait_ready();
    let logs = trio.open_all();
    canaries.assert_absent(&roots);
    drop(logs);
    // The control: the same values in a plaintext bucket are found on the disk of each node that is not encrypted.
    if cipher.is_none() {
        let client = trio.cluster.client(0).await;
        let config = serde_json::json!({ "name": "KV_UNIBUS_users", "subjects": ["$KV.UNIBUS_users.>"],
            "storage": "file", "num_replicas": 3 });
        let reply = client.request("$JS.API.STREAM.CREATE.KV_UNIBUS_users", config.to_string().into()).await;
        reply.unwrap();
        let record = format!("{{\"handle\":\"{}\"}}", canaries.word("control"));
        client.request("$KV.UNIBUS_users.a", record.into()).await.unwrap();
        let found = canaries.search(&roots);
        assert!(found.len() >= 3, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_has_anything_readable_on_its_disk() {
    scanned(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_has_anything_readable_on_its_disk_when_the_server_encrypts_too() {
    scanned(Some(Cipher::Aes)).await;
}
