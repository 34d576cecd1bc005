//! The first line that nats-server says to whoever connects: the sign that it is there and works.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The shortest time that a connection gets: none at all would be no limit.
const SHORTEST: Duration = Duration::from_millis(1);
/// Bytes of a greeting at most.
const LONGEST_BYTES: u64 = 16 * 1024;

/// Asks a client port for its greeting; whether it has the name of this server.
pub(super) fn ask(address: SocketAddr, server_name: &str, within: Duration) -> Result<bool> {
    let deadline = Instant::now() + within;
    let stream = TcpStream::connect_timeout(&address, within.max(SHORTEST))?;
    let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST);
    stream.set_read_timeout(Some(left))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_BYTES)).read_line(&mut line)?;
    let name = format!("\"server_name\":\"{server_name}\"");
    Ok(line.starts_with("INFO {") && line.contains(&name))
}

/// Whether an error of a connection is the other side's, and not that of this process.
pub(super) fn is_silence(error: &Error) -> bool {
    use ErrorKind as Kind;
    matches!(
        error.kind(),
        // A read that takes too long gives one of the first two.
        Kind::WouldBlock
            | Kind::TimedOut
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_the_other_side_is_silent() {
        let of = |number: i32| is_silence(&Error::from_raw_os_error(number));
        for silence in [Errno::AGAIN, Errno::TIMEDOUT, Errno::CONNREFUSED, Errno::CONNRESET, Errno::PIPE] {
            assert!(of(silence.raw_os_error()), "{silence}");
        }
        // No file number, no memory, no port left here: that says nothing about nats-server.
        for own in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::PERM]
        {
            assert!(!of(own.raw_os_error()), "{own}");
        }
    }
}
