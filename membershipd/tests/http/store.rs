//! The store that the tests run on.

use std::sync::Arc;

use unibus_keyfile::secret::StateKey;
use unibus_membership_api::health::AuthMode;
use unibus_membershipd::{clock::Clock, posture::Facts};
use unibus_store::{memory::MemoryStore, store::Store};

pub(crate) fn open(folder: &tempfile::TempDir, _: &dyn Clock, auth: AuthMode) -> (Arc<dyn Store>, Facts) {
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    let store = Arc::new(MemoryStore::new(&StateKey::generate()));
    (store, Facts::new("test".into(), auth, Vec::new(), Vec::new()))
}
