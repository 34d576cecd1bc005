//! Why a nats-server is not started, or not kept. Each finding has its own name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use unibus_keyfile::error::{ErrorClass, KeyError};

/// Why there is no nats-server. Nothing was deleted or made anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// The program is not there.
    #[error("there is no nats-server: {looked}")]
    ProgramNotFound {
        /// Where it was looked for.
        looked: String,
    },
    /// The file is there and cannot be run.
    #[error("cannot run `{}`", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The program does not say a version as nats-server does.
    #[error("`{}` is not a nats-server: {said}", path.display())]
    NotNatsServer {
        /// The file.
        path: PathBuf,
        /// What it said, cut short.
        said: String,
    },
    /// The program is older than what the sealed log needs.
    #[error("`{}` is nats-server {found}, at least {needed} is needed", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that does.
        needed: &'static str,
    },
    /// Something else listens on the port.
    #[error("the {which} port {address} is taken")]
    PortTaken {
        /// `client`, `cluster` or `monitoring`.
        which: &'static str,
        /// Address and port.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}, the {which} port")]
    CannotListen {
        /// `client`, `cluster` or `monitoring`.
        which: &'static str,
        /// Address and port.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder of JetStream cannot be used.
    #[error("cannot {step} `{}`", path.display())]
    Folder {
        /// What was tried.
        step: &'static str,
        /// The folder or a file in it.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("another process holds the lock `{}`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder was made with another server-side cipher or key, or with none.
    #[error("the folder `{}` was made with {found}, and is to be started with {wanted}", path.display())]
    OtherServerKey {
        /// The folder.
        path: PathBuf,
        /// Cipher and fingerprint of the folder.
        found: String,
        /// Cipher and fingerprint that were given.
        wanted: String,
    },
    /// The folder has data, and nothing tells which server-side key it was made with.
    #[error("the folder `{}` does not tell what it was made with: {what}", path.display())]
    UnknownServerKey {
        /// The folder.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The server-side key makes no key.
    #[error("the server-side key cannot be used: {problem}")]
    ServerKey {
        /// What is wrong with it; never the key.
        problem: &'static str,
    },
    /// nats-server is up and did not say that it encrypts.
    #[error("nats-server did not say that it encrypts with {wanted}")]
    NotEncrypting {
        /// The cipher that was asked for.
        wanted: &'static str,
    },
    /// nats-server cannot decrypt or recover what lies in its folder. It was killed at once.
    #[error("nats-server cannot recover its folder: {line}")]
    Unrecoverable {
        /// The line of its log.
        line: String,
    },
    /// The disk is full: nats-server was ended, or is not started.
    #[error("the disk of `{}` is full, and nats-server does not run without room", path.display())]
    OutOfSpace {
        /// The folder of JetStream.
        path: PathBuf,
    },
    /// nats-server gave up.
    #[error("nats-server gave up: {line}")]
    GaveUp {
        /// The line of its log.
        line: String,
    },
    /// nats-server ended before it was ready.
    #[error("nats-server ended before it was ready ({how}); it said last: {line}")]
    Ended {
        /// Exit code or signal.
        how: String,
        /// The last line of its log.
        line: String,
    },
    /// nats-server did not get ready.
    #[error("nats-server was not ready within {} s; it said last: {line}", waited.as_secs())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// The last line of its log.
        line: String,
    },
    /// nats-server was up and did not answer any more. It was killed.
    #[error("nats-server did not answer for {} s and was killed", silent.as_secs())]
    Hung {
        /// How long it was asked in vain.
        silent: Duration,
    },
    /// A value does not go into nats-server's configuration.
    #[error("`{setting}` cannot be used: {problem}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it; never a secret.
        problem: String,
    },
    /// The guard between this process and nats-server does not do its work.
    #[error("the guard of nats-server failed: {why}")]
    Guard {
        /// What it said.
        why: String,
    },
    /// The system gives no process, pipe or thread.
    #[error("cannot {step}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file of the daemon's own NATS identity cannot be used.
    #[error("cannot use the file of the internal identity")]
    IdentityFile(#[source] KeyError),
    /// The file of the daemon's own NATS identity is damaged. It is never replaced.
    #[error("`{}` is not an identity: {problem}", path.display())]
    DamagedIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        problem: &'static str,
    },
}

impl NatsError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::ProgramNotFound { .. } | Self::Setting { .. } | Self::ServerKey { .. } => {
                ErrorClass::Misuse
            }
            Self::NotExecutable { .. }
            | Self::CannotListen { .. }
            | Self::Folder { .. }
            | Self::OutOfSpace { .. }
            | Self::Guard { .. }
            | Self::System { .. } => ErrorClass::Io,
            Self::NotNatsServer { .. } | Self::TooOld { .. } => ErrorClass::Unsupported,
            Self::PortTaken { .. } => ErrorClass::Conflict,
            Self::Locked { .. } => ErrorClass::Locked,
            Self::OtherServerKey { .. } => ErrorClass::WrongKey,
            Self::UnknownServerKey { .. } | Self::NotEncrypting { .. } => ErrorClass::NotProven,
            Self::Unrecoverable { .. } | Self::DamagedIdentity { .. } => ErrorClass::Corrupt,
            Self::GaveUp { .. } | Self::Ended { .. } | Self::NotReady { .. } | Self::Hung { .. } => {
                ErrorClass::Unavailable
            }
            Self::IdentityFile(source) => source.class(),
        }
    }

    /// Whether starting it again as it is cannot help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::ProgramNotFound { .. }
                | Self::NotExecutable { .. }
                | Self::NotNatsServer { .. }
                | Self::TooOld { .. }
                | Self::OtherServerKey { .. }
                | Self::UnknownServerKey { .. }
                | Self::ServerKey { .. }
                | Self::NotEncrypting { .. }
                | Self::Unrecoverable { .. }
                | Self::Setting { .. }
                | Self::IdentityFile(_)
                | Self::DamagedIdentity { .. }
        )
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProgramNotFound { .. } => "UB-N001",
            Self::NotExecutable { .. } => "UB-N002",
            Self::NotNatsServer { .. } => "UB-N003",
            Self::TooOld { .. } => "UB-N004",
            Self::PortTaken { .. } => "UB-N005",
            Self::CannotListen { .. } => "UB-N006",
            Self::Folder { .. } => "UB-N007",
            Self::Locked { .. } => "UB-N008",
            Self::OtherServerKey { .. } => "UB-N009",
            Self::UnknownServerKey { .. } => "UB-N010",
            Self::ServerKey { .. } => "UB-N011",
            Self::NotEncrypting { .. } => "UB-N012",
            Self::Unrecoverable { .. } => "UB-N013",
            Self::GaveUp { .. } => "UB-N014",
            Self::Ended { .. } => "UB-N015",
            Self::NotReady { .. } => "UB-N016",
            Self::Setting { .. } => "UB-N017",
            Self::Guard { .. } => "UB-N018",
            Self::System { .. } => "UB-N019",
            Self::DamagedIdentity { .. } => "UB-N020",
            Self::Hung { .. } => "UB-N021",
            Self::OutOfSpace { .. } => "UB-N022",
            Self::IdentityFile(source) => source.code(),
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ProgramNotFound { .. } | Self::NotNatsServer { .. } => {
                "install nats-server, or name it with --nats-server-bin".into()
            }
            Self::NotExecutable { .. } => {
                "name another one with --nats-server-bin, or make it executable".into()
            }
            Self::TooOld { .. } => "install a newer nats-server, or name one with --nats-server-bin".into(),
            Self::PortTaken { which, .. } => {
                format!("stop what listens there, or choose another {which} port")
            }
            Self::CannotListen { .. } => {
                "give an address of this machine with --bind, and a port above 1023".into()
            }
            Self::Folder { .. } => {
                "let the user of the daemon write to the folder, and see that its disk has room".into()
            }
            Self::Locked { .. } => {
                "another daemon has the folder; stop it, or choose another --nats-store".into()
            }
            Self::OutOfSpace { .. } => {
                "make room on that disk, at least 8 MiB: nats-server is then started by itself, and catches up".into()
            }
            Self::OtherServerKey { .. } | Self::UnknownServerKey { .. } => {
                "start it with the cipher and key that the folder was made with; nothing was touched".into()
            }
            Self::ServerKey { .. } => "give 32 random bytes, as 64 hexadecimal digits".into(),
            Self::NotEncrypting { .. } => {
                "use a nats-server that knows the cipher; this one would write without it".into()
            }
            Self::Unrecoverable { .. } => {
                "keep the folder as it is; put back the right key or a sound copy of the folder".into()
            }
            Self::GaveUp { .. } | Self::Ended { .. } | Self::NotReady { .. } => {
                "read what nats-server said, above".into()
            }
            Self::Hung { .. } => "look at the load, the memory and the disk of this machine".into(),
            Self::Setting { setting, .. } => format!("give another value for {setting}"),
            Self::DamagedIdentity { .. } => {
                "put the file back; if it is lost, remove it: a new identity is made on the next start".into()
            }
            Self::IdentityFile(source) => source.hint(),
            Self::Guard { .. } | Self::System { .. } => return None,
        })
    }
}

pub(crate) fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> NatsError {
    move |source| NatsError::System { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> Vec<NatsError> {
        let path = || PathBuf::from("/p");
        let source = || std::io::Error::other("reason");
        let text = || "text".to_owned();
        let address = SocketAddr::from(([127, 0, 0, 1], 4250));
        vec![
            NatsError::ProgramNotFound { looked: text() },
            NatsError::NotExecutable { path: path(), source: source() },
            NatsError::NotNatsServer { path: path(), said: text() },
            NatsError::TooOld { path: path(), found: text(), needed: "2.12" },
            NatsError::PortTaken { which: "client", address },
            NatsError::CannotListen { which: "client", address, source: source() },
            NatsError::Folder { step: "read", path: path(), source: source() },
            NatsError::Locked { path: path() },
            NatsError::OtherServerKey { path: path(), found: text(), wanted: text() },
            NatsError::UnknownServerKey { path: path(), what: text() },
            NatsError::ServerKey { problem: "text" },
            NatsError::NotEncrypting { wanted: "AES-GCM" },
            NatsError::Unrecoverable { line: text() },
            NatsError::GaveUp { line: text() },
            NatsError::Ended { how: text(), line: text() },
            NatsError::NotReady { waited: Duration::from_secs(1), line: text() },
            NatsError::Setting { setting: "text", problem: text() },
            NatsError::Guard { why: text() },
            NatsError::System { step: "read", source: source() },
            NatsError::DamagedIdentity { path: path(), problem: "text" },
            NatsError::Hung { silent: Duration::from_secs(20) },
            NatsError::OutOfSpace { path: path() },
        ]
    }

    #[test]
    fn each_has_a_code_of_its_own_and_its_page_says_the_exit_code() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runbooks/errors");
        for (number, error) in each().into_iter().enumerate() {
            let digits = format!("{:03}", number + 1);
            assert_eq!(error.code().strip_prefix("UB-N"), Some(digits.as_str()));
            let page = std::fs::read_to_string(pages.join(format!("{}.md", error.code()))).unwrap();
            let wanted = format!("Exit code: {}.", error.class().exit_code());
            assert!(page.contains(&wanted), "{}: the page does not say `{wanted}`", error.code());
            let shown = error.to_string();
            assert!(!shown.ends_with('.') && !shown.contains("reason"), "{shown}");
        }
    }
}
