//! The plaintext sources, opened by their URLs.

use std::sync::{Arc, Mutex, PoisonError};

use unibus_nats::InternalIdentity;
use unibus_store::plaintext::{Buckets, PlaintextSource};

use crate::error::MigrateError;
use crate::open::Given;
use crate::output::Output;
use crate::source::{Servers, StoreUrl};

/// Opens a plaintext source.
///
/// # Errors
/// `Plaintext`, `Identity`; `Unproven` for another host without a CA; `Role` for what is not plaintext.
pub fn open(
    url: &StoreUrl,
    given: Given<'_>,
    (command, output): (&'static str, Output),
) -> Result<PlaintextSource, MigrateError> {
    match url {
        StoreUrl::Sqlite(path) => Ok(PlaintextSource::open(path)?),
        StoreUrl::KvPlain(servers) => read(&buckets(servers, given)?, output),
        _ => {
            let hint = "name a plaintext source: `sqlite:PATH` or `kv-plain:nats://HOST:PORT`";
            Err(MigrateError::Role { url: url.clone(), role: "the plaintext source", command, hint })
        }
    }
}

/// Reads the buckets, and says how far that is.
///
/// # Errors
/// `Plaintext`.
pub fn read(buckets: &Buckets, output: Output) -> Result<PlaintextSource, MigrateError> {
    let progress = Arc::new(Mutex::new(output.progress("read", None)));
    let told = Arc::clone(&progress);
    let buckets = buckets.clone().progress(Arc::new(move |done, total| {
        told.lock().unwrap_or_else(PoisonError::into_inner).at_of(done, total);
    }));
    Ok(PlaintextSource::open_buckets(&buckets)?)
}

/// The buckets on these servers. Nothing is asked of them yet.
///
/// # Errors
/// `Unproven` for another host without a CA; `Identity`.
pub fn buckets(servers: &Servers, given: Given<'_>) -> Result<Buckets, MigrateError> {
    if given.ca.is_none() && !servers.are_local() {
        return Err(MigrateError::Unproven { store: StoreUrl::KvPlain(servers.clone()) });
    }
    let mut buckets = Buckets::on(servers.urls());
    if let Some(path) = given.internal_id_file {
        buckets = buckets.identity(InternalIdentity::open(path)?.expose_seed());
    }
    Ok(match given.ca {
        Some(path) => buckets.ca(path),
        None => buckets,
    })
}
