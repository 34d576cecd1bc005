//! Keys of unibus at-rest: node key files, the operator key, nodesets, keyrings, sealing and the witness.
//!
//! Nothing in here speaks SQL or to a network. Formats take bytes and give bytes or an error; the few modules
//! that touch the disk or the process say so in their first line. Every byte layout is written down in
//! `SPEC.md` beside this crate and held against the code by a test.
//!
//! # The paved path
//! ```
//! use unibus_keyfile::{keyring::Keyring, node_key::NodeKeyFile, operator_key::OperatorKey};
//! use unibus_keyfile::{id::{Lineage, NodeName, UnixTime}, nodeset::{Nodeset, Plan}};
//!
//! let operator = OperatorKey::generate();
//! let alpha = NodeKeyFile::generate("alpha".parse::<NodeName>().unwrap(), operator.cluster_id());
//! let now = UnixTime::from_seconds(1_800_000_000);
//! let nodeset = Plan::first(&operator).with_node(alpha.member(now)).sign(&operator).unwrap();
//!
//! let nodeset = Nodeset::decode(nodeset.as_bytes(), &operator.cluster_id()).unwrap();
//! let (keyring, secrets) = Keyring::create(&nodeset, &alpha, Lineage::random(), None, now).unwrap();
//! let again = Keyring::decode(keyring.as_bytes(), &nodeset, Some(&alpha)).unwrap().unlock(&alpha).unwrap();
//! assert_eq!(again.primary().0, secrets.primary().0);
//! ```

pub mod aad;
pub mod acknowledgement;
pub mod armour;
pub mod census;
pub mod derive;
pub mod digest;
pub mod durable;
pub mod envelope;
pub mod error;
pub mod file;
pub mod hygiene;
pub mod id;
pub mod key_text;
pub mod keyring;
mod lock;
pub mod name;
pub mod node_key;
pub mod nodeset;
pub mod operator_key;
pub mod provider;
pub mod receipt;
pub mod recovery;
pub mod request;
pub mod seal;
pub mod secret;
pub mod signed;
pub mod stream;
pub mod suite;
pub mod witness;
