//! The admin socket: a Unix socket in the state folder over which the operator of this host reaches the running daemon.
//! HTTP, mode 0600, and only the daemon's own user and root are served.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::{UnixListener, UnixStream};
use unibus_membership_api::{
    Problem,
    health::Health,
    paths,
    users::{AddUser, User},
};
use unibus_store::sealed_log::Replication;

use crate::{error::DaemonError, http::limits::LocalOnly};

/// Path that measures the posture now.
pub const SELFCHECK: &str = "/selfcheck";
/// Path that remembers a drilled recovery; `unibus-migrate drill` calls it.
pub const DRILL: &str = "/drill";
/// Path that says where the node stands with its keys; `unibus-migrate rotate node` asks it.
pub const KEYS: &str = "/keys";
/// Path that has the key file read again.
pub const RELOAD_KEYS: &str = "/keys/reload";
/// Path that marks epochs as exposed: `{"epochs": [1, 2]}`.
pub const EXPOSE_EPOCHS: &str = "/keys/expose";
/// Path that says which nodes hold the log.
pub const REPLICATION: &str = "/replication";
/// Path that rotates the data key of a database, and says how that stands; `unibus-migrate rotate epoch` calls it.
pub const ROTATE_EPOCH: &str = "/rotate/epoch";
/// Path that takes a rotation back.
pub const ABORT_ROTATION: &str = "/rotate/epoch/abort";
/// Bytes of an answer at most; room for a million users.
const MAX_ANSWER_BYTES: usize = 512 * 1024 * 1024;

/// Where the socket of a state folder is.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Which nodes hold the log: the answer of [`REPLICATION`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicationBody {
    /// Name of the node that leads; null while there is none.
    pub leader: Option<String>,
    /// Followers that there should be.
    pub followers: usize,
    /// Followers that have everything.
    pub followers_current: usize,
}

impl From<&Replication> for ReplicationBody {
    fn from(found: &Replication) -> Self {
        let leaders = usize::from(found.leader.is_some());
        Self {
            leader: found.leader.clone(),
            followers: found.wanted.saturating_sub(1),
            followers_current: found.current.saturating_sub(leaders),
        }
    }
}

/// The bound socket; its file goes when this does.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    path: PathBuf,
}

impl AdminSocket {
    /// Binds the socket. The caller holds the lock of the store, so that a socket that is there and dead is an old one.
    pub(crate) fn bind(state_dir: &Path) -> Result<(Self, LocalOnly), DaemonError> {
        let path = socket_path(state_dir);
        let failed = |step: &'static str| {
            let path = path.clone();
            move |source: io::Error| DaemonError::Files { step, path, source }
        };
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                    return Err(DaemonError::Running { path });
                }
                std::fs::remove_file(&path).map_err(failed("remove the old admin socket"))?;
            }
            Ok(_) => {
                let source = io::Error::new(io::ErrorKind::AlreadyExists, "it is not a socket");
                return Err(failed("bind the admin socket")(source));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed("bind the admin socket"))?;
        let socket = Self { path: path.clone() };
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(failed("protect the admin socket"))?;
        Ok((socket, LocalOnly(listener)))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A socket that stays is recognised as dead by the next start.
        std::fs::remove_file(&self.path).ok();
    }
}

/// A connection to the running daemon.
#[derive(Debug)]
pub struct AdminClient {
    path: PathBuf,
    sender: SendRequest<Full<Bytes>>,
}

impl AdminClient {
    /// Connects; none if no daemon runs on this state folder.
    ///
    /// # Errors
    /// [`DaemonError::Files`] if there is a socket that this user may not use; [`DaemonError::Admin`].
    pub async fn connect(state_dir: &Path) -> Result<Option<Self>, DaemonError> {
        let path = socket_path(state_dir);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(DaemonError::Files { step: "connect to", path, source }),
        };
        let (sender, connection) = match handshake(TokioIo::new(stream)).await {
            Ok(made) => made,
            Err(error) => return Err(DaemonError::Admin { path, problem: error.to_string() }),
        };
        tokio::spawn(async move { connection.await.ok() });
        Ok(Some(Self { path, sender }))
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`DaemonError::UserExists`], [`DaemonError::Refused`], [`DaemonError::Admin`].
    pub async fn add_user(&mut self, user: &AddUser) -> Result<User, DaemonError> {
        match self.call(Method::POST, paths::USERS, Some(user)).await? {
            Answer::Done(user) => Ok(user),
            Answer::Problem(StatusCode::CONFLICT, _) => Err(DaemonError::UserExists),
            Answer::Problem(_, problem) => Err(DaemonError::Refused { problem }),
        }
    }

    /// Lists all users.
    ///
    /// # Errors
    /// [`DaemonError::Refused`], [`DaemonError::Admin`].
    pub async fn users(&mut self) -> Result<Vec<User>, DaemonError> {
        match self.call(Method::GET, paths::USERS, None::<&()>).await? {
            Answer::Done(users) => Ok(users),
            Answer::Problem(_, problem) => Err(DaemonError::Refused { problem }),
        }
    }

    /// Revokes a user.
    ///
    /// # Errors
    /// [`DaemonError::NoSuchUser`], [`DaemonError::Refused`], [`DaemonError::Admin`].
    pub async fn revoke_user(&mut self, sign_pub: &str) -> Result<User, DaemonError> {
        match self.call(Method::POST, &paths::revoke_user(sign_pub), None::<&()>).await? {
            Answer::Done(user) => Ok(user),
            Answer::Problem(StatusCode::NOT_FOUND, _) => Err(DaemonError::NoSuchUser),
            Answer::Problem(_, problem) => Err(DaemonError::Refused { problem }),
        }
    }

    /// Which nodes hold the log, asked now; none for a store that is no log.
    ///
    /// # Errors
    /// [`DaemonError::Refused`], [`DaemonError::Admin`].
    pub async fn replication(&mut self) -> Result<Option<ReplicationBody>, DaemonError> {
        match self.call(Method::GET, REPLICATION, None::<&()>).await? {
            Answer::Done(replication) => Ok(Some(replication)),
            Answer::Problem(StatusCode::NOT_FOUND, _) => Ok(None),
            Answer::Problem(_, problem) => Err(DaemonError::Refused { problem }),
        }
    }

    /// Has the posture measured, and gives it whatever it is.
    ///
    /// # Errors
    /// [`DaemonError::Admin`].
    pub async fn selfcheck(&mut self) -> Result<Health, DaemonError> {
        match self.call(Method::POST, SELFCHECK, None::<&()>).await? {
            Answer::Done(health) => Ok(health),
            Answer::Problem(_, problem) => Err(DaemonError::Refused { problem }),
        }
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer<T>, DaemonError> {
        let socket = self.path.clone();
        let failed = |problem: String| DaemonError::Admin { path: socket.clone(), problem };
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| failed(error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if let Ok(answer) = serde_json::from_slice(&body) {
            return Ok(Answer::Done(answer));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Ok(Answer::Problem(status, problem.detail.unwrap_or(problem.title))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

enum Answer<T> {
    Done(T),
    Problem(StatusCode, String),
}
