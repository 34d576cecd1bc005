//! A proxy that can lose the acknowledgement of a write: the server has it, and whoever wrote it never hears of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What an acknowledgement of a stored message has in it.
const ACKNOWLEDGED: &[u8] = b"\"seq\":";

/// Listens for as long as the process lives.
pub(crate) struct Lossy {
    pub(crate) port: u16,
    armed: Arc<AtomicBool>,
}

impl Lossy {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let armed = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&armed);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from, to, None));
                let armed = Arc::clone(&of_thread);
                thread::spawn(move || pass(server, client, Some(&armed)));
            }
        });
        Self { port, armed }
    }

    /// The next acknowledgement is swallowed, and its connection is cut.
    pub(crate) fn lose_one(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, armed: Option<&AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let bytes = &buffer[..count];
        let is_one = || bytes.windows(ACKNOWLEDGED.len()).any(|window| window == ACKNOWLEDGED);
        if armed.is_some_and(|armed| is_one() && armed.swap(false, Ordering::SeqCst)) {
            break;
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
