//! Whether the ports are free, before nats-server is asked to listen on them.

use std::net::{SocketAddr, TcpListener};

use crate::error::NatsError;

/// Listens on each for a moment.
///
/// # Errors
/// [`NatsError::PortTaken`], [`NatsError::CannotListen`].
pub fn check(listens_on: &[(&'static str, SocketAddr)]) -> Result<(), NatsError> {
    for (at, (which, address)) in listens_on.iter().enumerate() {
        if listens_on.iter().take(at).any(|(_, other)| other.port() == address.port()) {
            return Err(NatsError::PortTaken { which, address: *address });
        }
        TcpListener::bind(address).map(drop).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => NatsError::PortTaken { which, address: *address },
            _ => NatsError::CannotListen { which, address: *address, source },
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_free_and_a_taken_one_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let refused = check(&[("cluster", address)]).unwrap_err();
        assert!(matches!(refused, NatsError::PortTaken { which: "cluster", .. }), "{refused:?}");
        drop(listener);
        check(&[("cluster", address)]).unwrap();
        assert!(check(&[("client", address), ("cluster", address)]).is_err());
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_listened_on() {
        let refused = check(&[("client", "192.0.2.1:4222".parse().unwrap())]).unwrap_err();
        assert!(matches!(refused, NatsError::CannotListen { which: "client", .. }), "{refused:?}");
    }
}
