//! The order in which a store is opened (SPEC store, section 5.4): every refusal comes before the first change.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use unibus_keyfile::derive;
use unibus_keyfile::durable::{self, LockFile, Sync};
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::{DocumentHash, Epoch, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::secret::DatabaseKey;
use unibus_keyfile::witness::{Witness, WitnessSealer};

use super::create;
use super::current;
use super::error::OpenError;
use super::meta::Meta;
use super::migration;
use super::open::{self, Access, CacheKib};
use super::options::{Mode, OpenOptions};
use super::paths::{self, NoNewWal, OpenHere, Paths};
use super::proof::{Expected, Proof};

/// Mode of the keyring file: it is a public document.
pub(super) const KEYRING_MODE: u32 = 0o644;

/// The documents around a database, verified.
pub(super) struct Documents {
    pub(super) nodeset: Nodeset,
    pub(super) keyring: Keyring,
    pub(super) witness: Option<Witness>,
}

/// A store that was proven, and what holds it.
pub(super) struct Opened {
    pub(super) paths: Paths,
    pub(super) documents: Documents,
    pub(super) secrets: Secrets,
    pub(super) key: DatabaseKey,
    /// Of that key.
    pub(super) epoch: Epoch,
    pub(super) proof: Proof,
    pub(super) access: Access,
    /// Dropped in this order: connection, then the empty log it made, then the mark, then the lock.
    pub(super) connection: Connection,
    pub(super) no_new_wal: Option<NoNewWal>,
    pub(super) open_here: OpenHere,
    pub(super) lock: Option<LockFile>,
}

/// Opens and proves a store.
pub(super) fn open(options: &OpenOptions) -> Result<Opened, OpenError> {
    let paths = Paths::of(&options.database)?;
    if options.mode == Mode::ReadWrite && options.keys.node().is_none() {
        return Err(OpenError::Misuse("a recovery key opens a store for reading only"));
    }
    create::finish_interrupted(&paths, options)?;
    let documents = documents(&paths, options)?;
    if paths::metadata(&paths.database)?.is_none() {
        let lineage = *documents.keyring.lineage();
        return Err(OpenError::DatabaseMissing { path: paths.database, evidence: "the keyring", lineage });
    }
    let lock = take_lock(&paths)?;
    if lock.is_none() && options.mode == Mode::ReadWrite {
        return Err(OpenError::Locked { path: paths.lock });
    }
    let mut opened = prove(paths, documents, options, lock)?;
    against_witness(&opened, options)?;
    migration::is_readable(&opened, options)?;
    if let (Mode::ReadWrite, Some(own)) = (options.mode, options.keys.node()) {
        rewrap(&mut opened, own)?;
    }
    Ok(opened)
}

pub(super) fn take_lock(paths: &Paths) -> Result<Option<LockFile>, OpenError> {
    LockFile::try_exclusive(&paths.lock).map_err(|source| OpenError::Document { document: "lock", source })
}

/// Nodeset, keyring and witness, each verified and held against the others.
pub(super) fn documents(paths: &Paths, options: &OpenOptions) -> Result<Documents, OpenError> {
    let nodeset = read(&options.nodeset, "nodeset")?;
    let nodeset = options
        .keys
        .decode_nodeset(&nodeset)
        .map_err(|source| OpenError::Untrusted { path: options.nodeset.clone(), source })?;
    let keyring = match file::read_document(&paths.keyring) {
        Ok(bytes) => bytes,
        Err(KeyError::Missing { .. }) => return Err(no_keyring(paths, options)),
        Err(source) => return Err(OpenError::Document { document: "keyring", source }),
    };
    let keyring = Keyring::decode(&keyring, &nodeset, options.keys.node())
        .map_err(|source| OpenError::Untrusted { path: paths.keyring.clone(), source })?;
    let witness = witness(options)?;
    if let Some(witness) = &witness {
        not_older(paths, &nodeset, &keyring, witness)?;
    }
    Ok(Documents { nodeset, keyring, witness })
}

fn read(path: &Path, document: &'static str) -> Result<Vec<u8>, OpenError> {
    file::read_document(path).map_err(|source| OpenError::Document { document, source })
}

pub(super) fn witness(options: &OpenOptions) -> Result<Option<Witness>, OpenError> {
    let Some(own) = options.keys.node() else { return Ok(None) };
    Witness::load(&options.state_dir, own)
        .map_err(|source| OpenError::Witness { path: Witness::path(&options.state_dir), source })
}

/// What it means that there is no keyring: nothing was ever here, or something is gone.
fn no_keyring(paths: &Paths, options: &OpenOptions) -> OpenError {
    let missing = |evidence| OpenError::KeyringMissing { path: paths.keyring.clone(), evidence };
    match (paths::metadata(&paths.database), witness(options)) {
        (Err(error), _) | (Ok(None), Err(error)) => error,
        (Ok(Some(_)), _) => missing("the database"),
        (Ok(None), Ok(Some(_))) => missing("the witness"),
        (Ok(None), Ok(None)) => OpenError::NothingThere { path: paths.database.clone() },
    }
}

/// Documents only go forward, and what was accepted once stays what it was.
fn not_older(paths: &Paths, nodeset: &Nodeset, keyring: &Keyring, seen: &Witness) -> Result<(), OpenError> {
    let version = |document, found: u64, hash: DocumentHash, witnessed: u64, seen: DocumentHash| {
        if found < witnessed {
            return Err(OpenError::DocumentRolledBack { document, found, witnessed });
        }
        if found == witnessed && hash != seen {
            return Err(OpenError::DocumentForked { document, version: found });
        }
        Ok(())
    };
    version("nodeset", nodeset.version(), nodeset.hash(), seen.nodeset_version, seen.nodeset_hash)?;
    let (found, witnessed) = (*keyring.lineage(), seen.lineage);
    if found != witnessed {
        return Err(OpenError::OtherLineage { path: paths.keyring.clone(), found, witnessed });
    }
    version("keyring", keyring.version(), keyring.hash(), seen.keyring_version, seen.keyring_hash)?;
    let follows = keyring.previous() == Some(seen.keyring_hash);
    if keyring.version() == seen.keyring_version.saturating_add(1) && !follows {
        return Err(OpenError::DocumentForked { document: "keyring", version: seen.keyring_version });
    }
    Ok(())
}

/// Unlocks and proves the database. With the lock nobody else writes, and no byte beside it changes either.
fn prove(
    paths: Paths,
    documents: Documents,
    options: &OpenOptions,
    lock: Option<LockFile>,
) -> Result<Opened, OpenError> {
    let identity = paths.look()?.ok_or_else(|| OpenError::NothingThere { path: paths.database.clone() })?;
    let secrets = options
        .keys
        .unlock(&documents.keyring)
        .map_err(|source| OpenError::Unlock { path: paths.keyring.clone(), source })?;
    let access = if lock.is_some() { Access::Proof } else { Access::Reader };
    let open_here = OpenHere::new(identity);
    let no_new_wal = lock.as_ref().map(|_| NoNewWal::before_opening(&paths)).transpose()?;
    let under = |epoch: Epoch| {
        let epoch_key =
            secrets.epoch(epoch).ok_or(OpenError::Misuse("an epoch of the keyring has no key"))?;
        let key = derive::database_key(epoch_key, documents.keyring.cluster());
        let expected = Expected {
            path: &paths.database,
            wal: &paths.wal,
            cluster: *documents.keyring.cluster(),
            lineage: *documents.keyring.lineage(),
            epoch,
            state_key: secrets.state_key(),
            schema: options.schema,
        };
        let connect =
            || open::connect(&paths.database, key.expose_to_sqlcipher(), access, CacheKib::STREAMING);
        let (connection, proof) = expected.prove(connect)?;
        Ok((epoch, key, connection, proof))
    };
    let mut epochs = current::epochs_of(&documents.keyring).into_iter();
    let mut found = under(epochs.next().unwrap_or_else(|| secrets.primary().0));
    for epoch in epochs {
        if !matches!(found, Err(OpenError::FirstPage { .. })) {
            break;
        }
        // What is said of the primary one is what counts if the other does not fit either.
        found = under(epoch).or_else(|other| match other {
            OpenError::FirstPage { .. } => found,
            other => Err(other),
        });
    }
    let (epoch, key, connection, proof) = found?;
    Ok(Opened {
        paths,
        documents,
        secrets,
        key,
        epoch,
        proof,
        access,
        connection,
        no_new_wal,
        open_here,
        lock,
    })
}

fn against_witness(opened: &Opened, options: &OpenOptions) -> Result<(), OpenError> {
    let (path, meta) = (opened.paths.database.clone(), &opened.proof.meta);
    let Some(witness) = &opened.documents.witness else {
        if options.keys.node().is_none() {
            return Ok(());
        }
        let path = Witness::path(&options.state_dir);
        return Err(OpenError::NoWitness { path, sequence: meta.sequence });
    };
    if meta.sequence < witness.sequence {
        return Err(OpenError::RolledBack { path, found: meta.sequence, witnessed: witness.sequence });
    }
    if meta.sequence == witness.sequence && meta.state_digest != witness.digest {
        return Err(OpenError::Forked { path, at: meta.sequence });
    }
    Ok(())
}

/// Brings the keyring up to a newer nodeset. The first change to the disk, after everything is proven.
fn rewrap(opened: &mut Opened, own: &NodeKeyFile) -> Result<(), OpenError> {
    let Documents { nodeset, keyring, .. } = &opened.documents;
    if nodeset.version() <= keyring.nodeset_version() {
        return Ok(());
    }
    let path = &opened.paths.keyring;
    let next = keyring
        .rewrap(nodeset, own, &opened.secrets)
        .map_err(|source| OpenError::Untrusted { path: path.clone(), source })?;
    durable::replace(path, next.as_bytes(), KEYRING_MODE, Sync::Disk)
        .map_err(|source| OpenError::Document { document: "keyring", source })?;
    opened.documents.keyring = next;
    Ok(())
}

/// The witness of a store that was just proven.
pub(super) fn witness_of(
    (nodeset, keyring): (&Nodeset, &Keyring),
    meta: &Meta,
    (now, last_drill): (UnixTime, Option<UnixTime>),
) -> Witness {
    Witness {
        cluster: meta.cluster,
        lineage: meta.lineage,
        sequence: meta.sequence,
        digest: meta.state_digest,
        nodeset_version: nodeset.version(),
        nodeset_hash: nodeset.hash(),
        keyring_version: keyring.version(),
        keyring_hash: keyring.hash(),
        last_drill,
        last_proof: Some(now),
    }
}

/// What seals this node's witness: its current key.
pub(super) fn sealer(own: &NodeKeyFile) -> Result<WitnessSealer, OpenError> {
    let current = own.slots().first().ok_or(OpenError::Misuse("the key file holds no key"))?;
    Ok(WitnessSealer::new(current))
}

/// Replaces the witness, and waits until it is on the disk.
pub(super) fn store_witness(
    witness: &Witness,
    state_dir: &Path,
    sealer: &WitnessSealer,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Witness { path: Witness::path(state_dir), source };
    witness.store(state_dir, sealer, Sync::Disk).map_err(failed)
}

/// Takes away what a killed process left of a witness it was replacing. Only the holder of the lock may.
pub(super) fn remove_half_witnesses(state_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(state_dir) else { return };
    let is_left_over = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(".witness.") && name.ends_with(".tmp")
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(is_left_over) {
        // If it stays, it is in nobody's way.
        drop(std::fs::remove_file(path));
    }
}
