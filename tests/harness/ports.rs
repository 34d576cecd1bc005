//! Ports that no other test process takes meanwhile.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

/// Below the ports that the system gives to outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1 that is ours until this is dropped, whether something listens there or not.
///
/// ```
/// let port = unibus_tests::ports::Port::take();
/// let listener = std::net::TcpListener::bind(("127.0.0.1", port.number())).unwrap();
/// ```
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free one.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn take() -> Self {
        let folder = folder();
        let start = rand::random::<u16>() % COUNT;
        let mut candidates = (0..COUNT).map(|step| FIRST + (start + step) % COUNT);
        candidates.find_map(|number| Self::lease(&folder, number)).expect("no free port")
    }

    fn lease(folder: &std::path::Path, number: u16) -> Option<Self> {
        // A file a port: its lock goes with the process, however that ends.
        let path = folder.join(number.to_string());
        let lock = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _lock: lock })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}

fn folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("unibus-test-ports-{user}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_and_given_back() {
        let ports: Vec<_> = (0..20).map(|_| Port::take()).collect();
        let mut numbers: Vec<_> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
        let number = numbers[0];
        assert!(Port::lease(&folder(), number).is_none());
        drop(ports);
        assert!(Port::lease(&folder(), number).is_some());
    }
}
