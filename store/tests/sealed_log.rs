//! The sealed log against somebody who has every right on its server, and no key.

#![cfg(feature = "sealed-log")]

#[cfg(test)]
#[path = "nats/server.rs"]
mod server;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests do what an intruder or an operator does")]
mod sealed_log {
    mod codes;
    mod disk;
    mod documents;
    mod duties;
    mod fixture;
    mod nonces;
    mod outage;
    mod rekey;
    mod rollback;
    mod rotation;
    mod starting;
    mod tamper;
}
