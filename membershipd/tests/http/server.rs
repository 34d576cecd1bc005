//! A daemon in this process, and a client that speaks to it byte by byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use unibus_keyfile::{digest::sha256, secret::Seed, suite::Signature25519};
use unibus_membership_api::{
    health::AuthMode,
    signature::{Request, SignatureParameters, format_content_digest, sign},
};
use unibus_membershipd::{
    clock::Clock,
    guards::ClearRooms,
    http::limits::Limits,
    run::{Config, run},
};
use unibus_store::{
    record::{Endpoint, SignPub, Timestamp, User, UserRole},
    store::{Actor, Store},
};

/// A clock that tests turn.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) const START: i64 = 1_800_000_000;

    pub(crate) fn seconds(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn turn(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.seconds() * 1_000_000).unwrap()
    }
}

/// How a test wants its server.
pub(crate) struct Setup {
    pub(crate) auth: AuthMode,
    pub(crate) clear_rooms: ClearRooms,
    pub(crate) limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        Self { auth: AuthMode::Enforce, clear_rooms: ClearRooms::Allowed, limits: Limits::default() }
    }
}

impl Setup {
    pub(crate) fn auth(auth: AuthMode) -> Self {
        Self { auth, ..Self::default() }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The answer, which must be this problem.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let json = self.json();
        assert_eq!(json["code"], code, "{text}");
        assert_eq!(json["status"], status);
        assert_eq!(json["type"], format!("urn:unibus:problem:{code}"));
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl Server {
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(folder, setup, TestClock::START).await
    }

    /// Starts on what lies in the folder.
    pub(crate) async fn start_in(folder: Arc<tempfile::TempDir>, setup: Setup, now: i64) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        let super::store::Parts { store, blobs, facts } =
            super::store::open(folder.path(), clock.as_ref(), setup.auth).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = folder.path().join("state");
        let parts = (Arc::clone(&store), blobs);
        let mut config = Config::new(parts, (setup.auth, setup.clear_rooms), facts, state);
        config.limits = setup.limits;
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (clock, stop) = (Arc::clone(&clock), stop.clone());
            async move { run(listener, config, clock, stop).await.unwrap() }
        });
        let server = Self { address, clock, store, folder, stop, running: Some(running) };
        // Its doors are open a moment before its store: until then everything is denied, what does not exist too.
        while server.plain("GET", "/nowhere").await.status == 503 {
            tokio::task::yield_now().await;
        }
        server
    }

    /// Stops it in good order, and lets go of the store.
    pub(crate) async fn stop(mut self) -> Arc<tempfile::TempDir> {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap();
        Arc::clone(&self.folder)
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the first measurement, and gives the posture.
    pub(crate) async fn until_measured(&self) -> Value {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let answer = self.plain("GET", "/healthz").await;
            if answer.status == 200 {
                return answer.json();
            }
            assert!(tokio::time::Instant::now() < deadline, "not proven: {answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Adds a user behind the API's back.
    pub(crate) async fn user(&self, role: UserRole) -> Key {
        let key = Key::new();
        let handle = format!("user-{}", &key.hex()[..8]).parse().unwrap();
        let user = User::new(key.sign_pub(), handle, role, self.clock.now());
        self.store.add_user(Actor::Operator, user).await.unwrap();
        key
    }

    pub(crate) async fn admin(&self) -> Key {
        self.user(UserRole::Admin).await
    }

    pub(crate) async fn member(&self) -> Key {
        self.user(UserRole::Member).await
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        stream.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        answer
    }

    pub(crate) async fn send(&self, call: &Call<'_>) -> Answer {
        parse(&self.raw(&call.bytes(&self.address.to_string())).await)
    }

    /// An unsigned request.
    pub(crate) async fn plain(&self, method: &str, target: &str) -> Answer {
        self.send(&Call::new(method, target)).await
    }

    pub(crate) async fn get(&self, key: &Key, target: &str) -> Answer {
        self.send(&Call::new("GET", target).signed(self, key)).await
    }

    pub(crate) async fn post(&self, key: &Key, target: &str, body: &Value) -> Answer {
        self.send(&Call::new("POST", target).json(body).signed(self, key)).await
    }

    pub(crate) async fn delete(&self, key: &Key, target: &str) -> Answer {
        self.send(&Call::new("DELETE", target).signed(self, key)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer: {:?}", String::from_utf8_lossy(bytes));
    });
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head[9..12].parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// A signing key of a caller.
pub(crate) struct Key(Signature25519);

impl Key {
    pub(crate) fn new() -> Self {
        Self(Signature25519::derive(&Seed::generate(), b"test"))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    pub(crate) fn sign_pub(&self) -> SignPub {
        SignPub::from_bytes(self.public()).unwrap()
    }

    pub(crate) fn hex(&self) -> String {
        self.sign_pub().to_string()
    }

    pub(crate) fn endpoint(&self) -> String {
        Endpoint::of(&self.sign_pub()).to_string()
    }

    pub(crate) fn sign(&self, base: &[u8]) -> [u8; 64] {
        self.0.sign_bare(base)
    }
}

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces a header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.header(name, value)
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        &self.headers.iter().find(|(other, _)| other == name).unwrap().1
    }

    /// Signs with the server's time and a new nonce.
    pub(crate) fn signed(self, server: &Server, key: &Key) -> Self {
        self.signed_at(server, key, server.clock.seconds())
    }

    pub(crate) fn signed_at(self, server: &Server, key: &Key, created: i64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let nonce = format!("nonce-{:012}-{:08}", NEXT.fetch_add(1, Ordering::SeqCst), std::process::id());
        self.signed_with(server, key, created, &nonce)
    }

    pub(crate) fn signed_with(mut self, server: &Server, key: &Key, created: i64, nonce: &str) -> Self {
        let digest = (!self.body.is_empty()).then(|| format_content_digest(&sha256(&[&self.body])));
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        let host = server.address.to_string();
        let request = Request {
            method: self.method,
            path,
            query,
            authority: Some(&host),
            content_digest: digest.as_deref(),
            content_type: self
                .headers
                .iter()
                .find(|(name, _)| name == "content-type")
                .map(|(_, value)| &**value),
        };
        let parameters = SignatureParameters { created, nonce, key_id: key.public() };
        let headers =
            sign(&request, &parameters, |base| Ok::<_, std::convert::Infallible>(key.sign(base))).unwrap();
        self.headers.push(("signature-input".into(), headers.signature_input));
        self.headers.push(("signature".into(), headers.signature));
        if let Some(digest) = digest {
            self.headers.push(("content-digest".into(), digest));
        }
        self
    }

    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let mut text =
            format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
