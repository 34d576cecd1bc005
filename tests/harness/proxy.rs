//! A TCP proxy that can lose everything, as a broken network does, or cut connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::network::connect_within;

/// What a proxy does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Passes it on.
    Passes,
    /// Keeps it: both sides see an open connection that is silent. It is passed on once traffic passes again, as TCP
    /// would do.
    Lost,
    /// Closes connections, and new ones at once.
    Cut,
}

/// A proxy from one port to another, both on 127.0.0.1. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// The network namespace that the target is in, if it is in one of its own.
    within: Option<String>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    traffic: Traffic,
    ended: bool,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Listens on `port` and connects to `target` for each connection.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(port: u16, target: u16) -> Self {
        Self::start_into(None, port, target)
    }

    /// The same to a target in a network namespace.
    pub(crate) fn start_into(within: Option<String>, port: u16, target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let state = State { traffic: Traffic::Passes, ended: false, streams: Vec::new() };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let shared = Arc::new(Shared { target, within, state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || accept(&listener, &of_thread));
        Self { port, shared, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does from now on.
    pub fn set(&self, traffic: Traffic) {
        self.shared.change(|state| {
            state.traffic = traffic;
            if traffic == Traffic::Cut {
                state.close_all();
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.ended = true;
            state.close_all();
        });
        // Wakes the thread that accepts.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn close_all(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits while traffic is lost; whether it passes then.
    fn passes(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |state: &mut State| state.traffic == Traffic::Lost && !state.ended;
        let state = self.changed.wait_while(state, lost).unwrap_or_else(PoisonError::into_inner);
        state.traffic == Traffic::Passes && !state.ended
    }

    /// Remembers a stream, so that it can be closed; whether it may be used.
    fn adopt(&self, stream: &TcpStream) -> bool {
        let Ok(copy) = stream.try_clone() else { return false };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended || state.traffic == Traffic::Cut {
            return false;
        }
        state.streams.retain(|stream| stream.peer_addr().is_ok());
        state.streams.push(copy);
        true
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state.lock().unwrap_or_else(PoisonError::into_inner).ended {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || connect(&stream, &shared));
    }
}

fn connect(from: &TcpStream, shared: &Arc<Shared>) {
    if !shared.adopt(from) || !shared.passes() {
        return;
    }
    let connected = match &shared.within {
        Some(name) => connect_within(name, shared.target),
        None => TcpStream::connect(shared.target),
    };
    let Ok(to) = connected else {
        // Whoever asked is told; what is remembered of it would keep it open.
        let _ = from.shutdown(Shutdown::Both);
        return;
    };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    if !shared.adopt(&to) {
        return;
    }
    let (Ok(back_from), Ok(back_to)) = (to.try_clone(), from.try_clone()) else { return };
    let of_back = Arc::clone(shared);
    let back = thread::spawn(move || copy(&back_from, &back_to, &of_back));
    copy(from, &to, shared);
    let _ = back.join();
}

/// Copies one direction until either end closes, then closes both.
fn copy(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || !shared.passes() || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Port;
    use std::time::Duration;

    #[test]
    fn it_passes_loses_and_cuts() {
        let (front, back) = (Port::take(), Port::take());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, back.number())).unwrap();
        let proxy = Proxy::start(front.number(), back.number());
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        client.write_all(b"1").unwrap();
        server.read_exact(&mut byte).unwrap();
        proxy.set(Traffic::Lost);
        client.write_all(b"2").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(server.read_exact(&mut byte).is_err(), "traffic was not lost");
        proxy.set(Traffic::Passes);
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
        proxy.set(Traffic::Cut);
        assert_eq!(server.read(&mut byte).unwrap(), 0);
        drop(proxy);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, front.number())).is_err());
    }
}
