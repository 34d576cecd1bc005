//! The store that the tests run on: the real one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Parser as _;
use unibus_membership_api::health::AuthMode;
use unibus_membershipd::{
    boot::Place,
    cli::{Cli, KvArgs},
    clock::Clock,
    posture::Facts,
};
use unibus_store::{blobs::BlobStore, store::Store};

pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) facts: Facts,
}

/// Flags that put everything below one folder, with development keys.
pub(crate) fn flags(folder: &Path) -> Cli {
    let flag = |name: &str, path: &str| [name.to_owned(), folder.join(path).to_str().unwrap().to_owned()];
    let words = ["membershipd".to_owned(), "--dev".to_owned()]
        .into_iter()
        .chain(flag("--db", "control.db"))
        .chain(flag("--store-dir", "blobs"))
        .chain(flag("--state-dir", "state"));
    Cli::parse_from(words)
}

pub(crate) async fn open(folder: &Path, clock: &dyn Clock, auth: AuthMode) -> Parts {
    let place = Place::prepare(&flags(folder).store, &KvArgs::default(), clock).unwrap();
    let (store, _) = place.open(clock).unwrap();
    let store = Arc::new(store);
    let facts = place.facts(&store, auth, PathBuf::from(env!("CARGO_BIN_EXE_membershipd"))).unwrap();
    Parts { blobs: Arc::new(place.blobs().unwrap()), store, facts }
}
