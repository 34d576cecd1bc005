//! Control records of unibus: users, rooms, members, sealed room keys and blobs, always encrypted on disk.
//!
//! One trait, [`store::Store`], over several backends; what an operation means is written once, in [`domain`],
//! and one conformance suite runs against each backend. The byte layouts and rules are in `SPEC.md` beside
//! this crate.
//!
//! It is not a database for anything else, it does not log, and it has no clock: times are the caller's.
//!
//! - [`record`]: the records, valid by construction, and their bytes
//! - [`store`]: the trait and what it answers
//! - [`domain`]: the rules
//! - [`backend`]: what another backend would have to bring
//! - [`archive`]: snapshots, one sealed file each
//! - [`blobs`]: the folder of sealed blobs
//! - [`failpoint`]: where tests let a step fail
//! - [`audit`]: reading folders as a thief would
//! - [`rotation`]: which step of a change of keys comes next
//! - `plaintext` (feature `sqlcipher`): the plaintext databases of earlier deployments, to be read and left behind
//! - `sealed_log` (feature `sealed-log`): the backend over JetStream, for one node or several
//! - `sqlcipher` (feature `sqlcipher`): the backend of a single node
//! - `memory` (feature `testing`): the backend that forgets

pub mod archive;
pub mod audit;
pub mod backend;
pub mod blobs;
pub mod domain;
pub mod error;
pub mod failpoint;
#[cfg(any(feature = "sqlcipher", feature = "sealed-log"))]
pub mod keys;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "sqlcipher")]
pub mod plaintext;
pub mod record;
pub mod rotation;
#[cfg(feature = "sealed-log")]
pub mod sealed_log;
#[cfg(feature = "sqlcipher")]
pub mod sqlcipher;
pub mod store;
