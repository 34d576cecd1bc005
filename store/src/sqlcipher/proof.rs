//! Proves a store: every page, the structure, every record, and that together they are those of the last commit.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Connection;
use unibus_keyfile::digest::StateHasher;
use unibus_keyfile::id::{ClusterId, Epoch, Lineage};
use unibus_keyfile::secret::StateKey;

use super::error::OpenError;
use super::fault::{Fault, SqliteError};
use super::meta::{self, Meta};
use super::query::{self, RowError, RowFault};
use super::schema::{self, Schema};
use super::{checker, nonce, paths, wal};
use crate::domain::Scan;
use crate::record::Kind;
use crate::store::Census;

/// Most page numbers an error names.
const PAGES_NAMED: usize = 16;

/// What the database has to be, known from documents outside it.
pub(super) struct Expected<'a> {
    pub(super) path: &'a Path,
    pub(super) wal: &'a Path,
    pub(super) cluster: ClusterId,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    pub(super) state_key: &'a StateKey,
    pub(super) schema: Schema,
}

/// What was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) meta: Meta,
    pub(super) census: Census,
    /// Version of the schema.
    pub(super) version: i64,
}

/// How it is seen that every page is authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageCheck {
    /// By a pass of its own, which names the pages that are not.
    Own,
    /// By reading all of them for the check of the structure, where that reads all there are.
    WithStructure,
}

impl Expected<'_> {
    /// Proves everything in one read transaction of a connection that `connect` makes, and gives it back.
    ///
    /// A proof that fails is taken again over a new connection, pages first: the page at which SQLite stops spoils
    /// a connection, and which pages are damaged could not be said.
    pub(super) fn prove(
        &self,
        connect: impl Fn() -> Result<Connection, rusqlite::Error>,
    ) -> Result<(Connection, Proof), OpenError> {
        let connect = || connect().map_err(|error| self.sqlite("open", error));
        let connection = connect()?;
        if let Ok(proof) = self.prove_alone(&connection, PageCheck::WithStructure) {
            return Ok((connection, proof));
        }
        drop(connection);
        let connection = connect()?;
        let proof = self.prove_alone(&connection, PageCheck::Own)?;
        Ok((connection, proof))
    }

    fn prove_alone(&self, connection: &Connection, pages: PageCheck) -> Result<Proof, OpenError> {
        self.is_encrypted(connection)?;
        let transaction = connection.unchecked_transaction().map_err(|error| self.sqlite("read", error))?;
        let proof = self.prove_by(&transaction, pages)?;
        transaction.finish().map_err(|error| self.sqlite("read", error))?;
        Ok(proof)
    }

    /// Proves everything within a read transaction of the caller's.
    pub(super) fn prove_within(&self, transaction: &Connection) -> Result<Proof, OpenError> {
        self.prove_by(transaction, PageCheck::Own)
    }

    fn prove_by(&self, transaction: &Connection, pages: PageCheck) -> Result<Proof, OpenError> {
        // Takes hold of the log, so that what a checkpoint beside us writes stays in it while pages are looked at.
        transaction
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .map_err(|error| self.sqlite("read", error))?;
        // Before anything more is read: a page that fails spoils the connection, and no page could be named then.
        if pages == PageCheck::Own || !self.structure_is_all(transaction)? {
            self.pages(transaction)?;
        }
        let version = self.header(transaction)?;
        self.structure(transaction, version)?;
        let meta = self.meta(transaction)?;
        let census = self.contents(transaction, &meta)?;
        Ok(Proof { meta, census, version })
    }

    pub(super) fn is_encrypted(&self, connection: &Connection) -> Result<(), OpenError> {
        let status: Result<String, _> = connection.query_row("PRAGMA cipher_status", [], |row| row.get(0));
        match status {
            Ok(status) if status == "1" => Ok(()),
            Ok(_) | Err(rusqlite::Error::QueryReturnedNoRows) => {
                Err(OpenError::NotEncrypted { path: self.path.into() })
            }
            Err(error) => Err(self.sqlite("read", error)),
        }
    }

    fn pages(&self, connection: &Connection) -> Result<(), OpenError> {
        let mut bad =
            self.unauthentic_pages(connection).map_err(|error| self.sqlite("check the pages of", error))?;
        if bad.is_empty() {
            return Ok(());
        }
        let logged = wal::pages(self.wal).map_err(|source| OpenError::Io {
            step: "read",
            path: self.wal.into(),
            source,
        })?;
        bad.retain(|page| !logged.contains(page));
        bad.truncate(PAGES_NAMED);
        if bad.is_empty() { Ok(()) } else { Err(OpenError::Pages { path: self.path.into(), pages: bad }) }
    }

    /// Whether the check of the structure reads every page of the file: each page belongs to a tree, none is free
    /// (a free one is only counted), none stands behind the last or in the log.
    fn structure_is_all(&self, connection: &Connection) -> Result<bool, OpenError> {
        let number = |pragma: &str| -> Result<u64, OpenError> {
            let number: Result<i64, _> =
                connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0));
            Ok(u64::try_from(number.map_err(|error| self.sqlite("read", error))?).unwrap_or(u64::MAX))
        };
        let bytes = |path: &Path| paths::metadata(path).map(|found| found.map_or(0, |found| found.len()));
        let pages = number("page_count")?;
        Ok(number("freelist_count")? == 0
            && bytes(self.wal)? == 0
            && bytes(self.path)? == pages.saturating_mul(wal::PAGE_BYTES.into()))
    }

    fn unauthentic_pages(&self, connection: &Connection) -> Result<Vec<u32>, rusqlite::Error> {
        let mut statement = connection.prepare("PRAGMA cipher_integrity_check")?;
        let mut rows = statement.query([])?;
        let mut bad = Vec::new();
        while let Some(row) = rows.next()? {
            let text = row.get_ref(0)?.as_str().unwrap_or_default();
            // "HMAC verification failed for page 7", "page 9 has an invalid size of ..."
            let number = text.split_once("page ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
            bad.push(number.and_then(|number| number.parse().ok()).unwrap_or(0));
        }
        Ok(bad)
    }

    fn header(&self, connection: &Connection) -> Result<i64, OpenError> {
        let number = |pragma: &str| -> Result<i64, OpenError> {
            connection
                .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
                .map_err(|error| self.sqlite("read", error))
        };
        let found = number("application_id")?;
        if found != schema::APPLICATION_ID {
            return Err(OpenError::Application { path: self.path.into(), found });
        }
        let found = number("user_version")?;
        let newest = self.schema.newest();
        if found < 1 || found > newest {
            return Err(OpenError::SchemaVersion { path: self.path.into(), found, newest });
        }
        Ok(found)
    }

    fn structure(&self, connection: &Connection, version: i64) -> Result<(), OpenError> {
        let first: String = connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|error| self.sqlite("check", error))?;
        if first != "ok" {
            return Err(OpenError::Structure { path: self.path.into(), detail: first });
        }
        match self.schema.is_exact(connection, version) {
            Ok(true) => Ok(()),
            Ok(false) => Err(OpenError::Schema { path: self.path.into() }),
            Err(error) => Err(self.sqlite("read", error)),
        }
    }

    fn meta(&self, connection: &Connection) -> Result<Meta, OpenError> {
        let other = |field| OpenError::OtherStore { path: self.path.into(), field };
        let meta = meta::read(connection).map_err(|error| self.sqlite("read", error))?;
        let meta = meta.ok_or_else(|| other("format"))?;
        if meta.cluster != self.cluster {
            return Err(other("cluster"));
        }
        if meta.lineage != self.lineage {
            return Err(other("lineage"));
        }
        if meta.epoch != self.epoch {
            return Err(other("epoch"));
        }
        Ok(meta)
    }

    fn contents(&self, connection: &Connection, meta: &Meta) -> Result<Census, OpenError> {
        let hasher = StateHasher::new(self.state_key);
        let mut census = Census::default();
        let digest = checker::digest_of(&hasher, |feed| {
            for kind in Kind::ALL {
                let (_, count) = query::scan(connection, Scan::Kind(kind), &mut |position, id, body| {
                    feed.push(position, &id, body).map(ControlFlow::Continue)
                })?;
                census.add(kind, count);
            }
            Ok(())
        });
        let step = "start a thread to check";
        let digest = digest.map_err(|source| OpenError::Io { step, path: self.path.into(), source })?;
        let digest = digest.map_err(|fault| self.row(fault))?;
        if digest != meta.state_digest {
            return Err(OpenError::Digest { path: self.path.into(), what: "state digest" });
        }
        let digest = nonce::digest_of_all(connection, &hasher).map_err(|error| self.sqlite("read", error))?;
        if digest != meta.nonce_digest {
            return Err(OpenError::Digest { path: self.path.into(), what: "nonce digest" });
        }
        Ok(census)
    }

    fn row(&self, fault: RowFault) -> OpenError {
        let path = self.path.into();
        match fault.error {
            RowError::Sqlite(error) => self.sqlite("read", error),
            RowError::Decode(source) => {
                OpenError::Record { path, kind: fault.position.kind, index: fault.position.index, source }
            }
        }
    }

    /// An error of SQLite, as what it means for a database whose key is known to be right.
    pub(super) fn sqlite(&self, step: &'static str, error: rusqlite::Error) -> OpenError {
        let path = self.path.to_path_buf();
        let source = SqliteError::from(error);
        match source.fault() {
            Fault::NotADatabase => OpenError::FirstPage { path },
            Fault::Corrupt => OpenError::Structure { path, detail: source.to_string() },
            _ => OpenError::Sqlite { step, path, source },
        }
    }
}
