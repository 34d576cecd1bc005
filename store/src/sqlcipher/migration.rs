//! Brings a proven store of an older schema to that of this release (SPEC store, section 5.9).

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::OpenError;
use super::open::{self, Access, CacheKib};
use super::opening::Opened;
use super::options::{Mode, OpenOptions};
use super::proof::{Expected, Proof};

/// Whether the queries can read the store as it is; if it is opened to be written it is brought up to date first.
pub(super) fn is_readable(opened: &Opened, options: &OpenOptions) -> Result<(), OpenError> {
    let (found, oldest) = (opened.proof.version, options.schema.read_from);
    if options.mode == Mode::ReadOnly && found < oldest {
        return Err(OpenError::SchemaOutdated { path: opened.paths.database.clone(), found, oldest });
    }
    Ok(())
}

/// Takes the missing steps in one transaction, which is committed only if what it holds is proven to be the same
/// store, and proven again from the disk afterwards. `proof` is that of the store as `connection` has it.
pub(super) fn run(
    connection: &Connection,
    key: &[u8; 32],
    expected: &Expected<'_>,
    proof: &Proof,
) -> Result<(), OpenError> {
    let (from, to) = (proof.version, expected.schema.newest());
    if from == to {
        return Ok(());
    }
    let failed = |error| expected.sqlite("change the schema of", error);
    // Dropped before its commit, it leaves the old version; so does a killed process.
    let transaction =
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failed)?;
    expected.schema.advance(&transaction, from).map_err(failed)?;
    let wanted = Proof { version: to, ..*proof };
    let path = || expected.path.to_path_buf();
    if expected.prove_within(&transaction)? != wanted {
        return Err(OpenError::SchemaStep { path: path(), from, to });
    }
    transaction.commit().map_err(failed)?;
    // An empty cache: what this one sees comes from the disk.
    let connect = || open::connect(expected.path, key, Access::Reader, CacheKib::STREAMING);
    let (_fresh, found) = expected.prove(connect)?;
    if found != wanted {
        return Err(OpenError::Forked { path: path(), at: proof.meta.sequence });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
