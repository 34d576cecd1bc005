//! The supervised nats-server, on the real one.

#![expect(clippy::disallowed_methods, reason = "tests damage files on purpose, as a thief or a crash would")]

#[cfg(test)]
mod bench;
#[cfg(test)]
mod hazards;
#[cfg(test)]
mod process;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod supervisor;
