//! A network namespace for each server: machines of their own as far as the network goes, with a cable between each two.
//!
//! What is cut here is cut by the kernel, for both ends or in one direction only, and TCP does what it does then.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use unibus_nats::guard::GuardCommand;

/// What the name of each of our namespaces begins with; the process id of its test follows.
const MARK: &str = "unibus-test-";
/// Where they are found by name.
const FOLDER: &str = "/run/netns";
/// Where `ip` is: the servers' environment is empty, so that nothing would be looked for.
const PROGRAMS: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Namespaces, one a server. They go with this; those of a test that was killed, with the next ones that are made.
#[derive(Debug)]
pub(crate) struct Network {
    ip: &'static str,
    names: Vec<String>,
}

impl Network {
    /// Namespaces with cables between them. None, and a word of it, where this user may make none.
    pub(crate) fn new(servers: usize) -> Option<Self> {
        let ip = PROGRAMS.into_iter().find(|path| Path::new(path).is_file());
        let Some(ip) = ip else { return skipped("there is no `ip`: install iproute2") };
        remove_leftovers(ip);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let mut network = Self { ip, names: Vec::new() };
        for index in 0..servers {
            let name = format!("{MARK}{}-{number}-{index}", std::process::id());
            if let Err(why) = run(ip, &["netns", "add", &name]) {
                return skipped(&why);
            }
            network.names.push(name);
        }
        let plugged = (0..servers).try_for_each(|index| network.plug_in(index));
        plugged.map_or_else(|why| skipped(&why), |()| Some(network))
    }

    /// Brings up a server's loopback, and its cables to those after it.
    fn plug_in(&self, one: usize) -> Result<(), String> {
        self.within(one, &["link", "set", "lo", "up"])?;
        for other in one + 1..self.names.len() {
            let peer = ["peer", "name", &cable(one), "netns", &self.names[other]];
            self.within(one, &[&["link", "add", &cable(other), "type", "veth"][..], &peer].concat())?;
            for (of, to) in [(one, other), (other, one)] {
                let address = format!("{}/30", address(of, to));
                self.within(of, &["address", "add", &address, "dev", &cable(to)])?;
                self.within(of, &["link", "set", &cable(to), "up"])?;
            }
        }
        Ok(())
    }

    /// Runs `ip` within a server's namespace.
    fn within(&self, index: usize, arguments: &[&str]) -> Result<(), String> {
        run(self.ip, &[&["-n", &self.names[index]][..], arguments].concat())
    }

    /// What a server is started by, in its namespace.
    pub(crate) fn guard(&self, index: usize, guard: &Path) -> GuardCommand {
        let words = ["netns".into(), "exec".into(), PathBuf::from(&self.names[index]), guard.into()];
        GuardCommand::new(self.ip, words)
    }

    /// The name of a server's namespace.
    pub(crate) fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// Pulls the cable between two servers, or puts it back.
    pub(crate) fn set_cable(&self, one: usize, other: usize, state: &str) {
        for (of, to) in [(one, other), (other, one)] {
            self.within(of, &["link", "set", &cable(to), state]).unwrap();
        }
    }

    /// Loses what one server sends to the other, in that direction alone; or no longer.
    pub(crate) fn lose(&self, from: usize, to: usize, verb: &str) {
        self.within(from, &["route", verb, "blackhole", &address(to, from)]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = run(self.ip, &["netns", "delete", name]);
        }
    }
}

fn skipped(why: &str) -> Option<Network> {
    eprintln!("no network namespaces here ({why}): proxies take their place");
    None
}

/// The name of the cable to another server.
fn cable(to: usize) -> String {
    format!("to{to}")
}

/// The address of a server on its cable to another one.
pub(crate) fn address(of: usize, to: usize) -> String {
    let (low, high) = (of.min(to), of.max(to));
    format!("10.99.{}.{}", low * 8 + high, if of < to { 1 } else { 2 })
}

/// Connects from within a namespace. The connection stays there, whoever uses it.
pub(crate) fn connect_within(name: &str, target: SocketAddr) -> io::Result<TcpStream> {
    let namespace = File::open(Path::new(FOLDER).join(name))?;
    // A thread of its own, which is not used for anything else.
    let entered = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect(target)
    });
    entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

fn run(ip: &str, arguments: &[&str]) -> Result<(), String> {
    let run = Command::new(ip).args(arguments).output().map_err(|error| error.to_string())?;
    let said = || format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&run.stderr).trim());
    if run.status.success() { Ok(()) } else { Err(said()) }
}

/// Removes the namespaces of tests that were killed. Their servers died with them.
fn remove_leftovers(ip: &str) {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(MARK).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = run(ip, &["netns", "delete", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cables_are_pulled_and_put_back_and_nothing_is_left() {
        let Some(network) = Network::new(2) else { return };
        let listener = {
            let namespace = File::open(Path::new(FOLDER).join(network.name(1))).unwrap();
            let entered = std::thread::spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                std::net::TcpListener::bind("0.0.0.0:7").unwrap()
            });
            entered.join().unwrap()
        };
        let target = format!("{}:7", address(1, 0)).parse().unwrap();
        connect_within(network.name(0), target).unwrap();
        listener.accept().unwrap();
        network.set_cable(0, 1, "down");
        assert!(connect_within(network.name(0), target).is_err());
        network.set_cable(0, 1, "up");
        connect_within(network.name(0), target).unwrap();
        network.lose(0, 1, "add");
        assert!(connect_within(network.name(0), target).is_err());
        network.lose(0, 1, "delete");
        connect_within(network.name(0), target).unwrap();
        let name = network.name(0).to_owned();
        drop(network);
        assert!(!Path::new(FOLDER).join(name).exists());
        // One that a killed test has left: the highest process id there is, and none uses.
        let left = format!("{MARK}4194305-0-0");
        let ip = PROGRAMS.into_iter().find(|path| Path::new(path).is_file()).unwrap();
        run(ip, &["netns", "add", &left]).unwrap();
        remove_leftovers(ip);
        assert!(!Path::new(FOLDER).join(left).exists());
    }
}
