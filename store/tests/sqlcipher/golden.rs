//! The store of `testdata/v1/sqlcipher`, made once by the first release: every later one reads it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::secret::BlobKey;
use unibus_store::record::{Blob, BlobHash, StorageName};
use unibus_store::sqlcipher::{CreateOptions, Keys, Mode, NewStore, OpenOptions, SqlcipherStore};
use unibus_store::store::{Actor, Nonce, Store, Strength};

use super::fixture::{Site, at, now, overwrite, records, room, sign_pub, tree, user};

const DIGEST: &str = "4fa3dd7f5bcc32b0c7cfa9d04015e40c2b6f3acbdeb7f4071e8163f071297179";
const LINEAGE: &str = "d5557f8c41b2e202b73395e61561d16e";
const SEQUENCE: u64 = 6;
const FILES: [&str; 5] = ["control.db", "control.db.keyring", "nodeset", "alpha.key", "state/witness"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/sqlcipher")
}

fn nonce() -> Nonce {
    Nonce::from_bytes(&[3; 16]).unwrap()
}

#[tokio::test]
async fn the_store_of_the_first_release_is_read_and_served() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    for name in FILES {
        let path = folder.path().join(name);
        overwrite(&path, &std::fs::read(golden().join(name)).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let own = Arc::new(NodeKeyFile::load(&folder.path().join("alpha.key")).unwrap());
    let options = OpenOptions::new(&folder.path().join("control.db"), Keys::Node(own), now());
    for mode in [Mode::ReadOnly, Mode::ReadWrite] {
        let store = SqlcipherStore::open(&options.clone().mode(mode)).unwrap();
        let position = store.position().unwrap();
        assert_eq!(position.lineage.to_string(), LINEAGE);
        assert_eq!((position.sequence.0, position.digest.to_string().as_str()), (SEQUENCE, DIGEST));
        let found = store.verify().unwrap().census;
        let found = [found.users, found.rooms, found.members, found.room_keys, found.blobs];
        assert_eq!(found, [22, 2, 2, 2, 1]);
        let read = |number| store.user(sign_pub(number), Strength::Local);
        assert_eq!(read(7).await.unwrap(), Some(user(7)));
        assert!(!read(3).await.unwrap().unwrap().is_active());
        let (room, owner, key) = room(1);
        assert_eq!(
            store.members(room.room_id.clone(), Strength::Local).await.unwrap(),
            std::slice::from_ref(&owner)
        );
        assert_eq!(
            store.room_key(room.room_id.clone(), owner.endpoint(), None, Strength::Local).await.unwrap(),
            Some(key)
        );
        let blob = store.blob(BlobHash::of(b"content"), Strength::Local).await.unwrap().unwrap();
        assert_eq!((blob.size_bytes(), blob.created_at), (7, at(4)));
        if mode == Mode::ReadWrite {
            assert!(!store.claim_nonce(sign_pub(1), nonce(), at(60), at(1)).await.unwrap(), "claimed before");
            store.add_user(Actor::Operator, user(22)).await.unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "made once; a store of a release is never made again"]
async fn make() {
    let site = Site::new();
    let folder = site.folder.path();
    let options = CreateOptions::new(&site.db, Arc::clone(&site.own), now()).state_dir(&site.state);
    let mut new = NewStore::begin(options).unwrap();
    records(20).iter().for_each(|bytes| new.push(bytes).unwrap());
    new.finish().unwrap();
    let store = site.open().unwrap();
    store.add_user(Actor::Operator, user(20)).await.unwrap();
    store.add_user(Actor::Operator, user(21)).await.unwrap();
    store.revoke_user(Actor::Operator, sign_pub(3), at(5)).await.unwrap();
    let (key, name) = (Arc::new(BlobKey::init_with(|key| key.fill(8))), StorageName::from_bytes([9; 16]));
    let blob = Blob::new(BlobHash::of(b"content"), 7, key, name, at(4)).unwrap();
    store.put_blob(Actor::Operator, blob).await.unwrap();
    assert!(store.claim_nonce(sign_pub(1), nonce(), at(60), at(0)).await.unwrap());
    let position = store.position().unwrap();
    println!("{} {} {}", position.lineage, position.sequence, position.digest);
    drop(store);
    overwrite(&folder.join("alpha.key"), site.own.to_text().as_bytes());
    assert!(!golden().exists(), "a store of a release is never made again");
    std::fs::create_dir_all(golden().join("state")).unwrap();
    let made = tree(folder);
    for name in FILES {
        let from = [format!("data/{name}"), name.to_owned()];
        let bytes = from.iter().find_map(|name| made.get(Path::new(name))).unwrap();
        overwrite(&golden().join(name), bytes);
    }
}
