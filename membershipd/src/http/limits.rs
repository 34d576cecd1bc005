//! What a connection may take: number, header size and time, body size and time. The accept loop is ours, because the
//! one of the framework has no time limit for headers and no cap on connections.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use unibus_membership_api::{Problem, ProblemCode, paths, problem::PROBLEM_JSON};

/// Limits of the HTTP API.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of all headers of a request together.
    pub header_bytes: usize,
    /// Time until the headers of a request must be there.
    pub header_timeout: Duration,
    /// Time until the body of a request must be there.
    pub body_timeout: Duration,
    /// Connections at the same time; a further one is told that the server is busy.
    pub connections: usize,
    /// KiB of request bodies held in memory at the same time; further ones wait.
    pub bodies_kib: usize,
    /// Time that open requests have after a stop was asked for.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: paths::MAX_HEADER_BYTES,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            connections: 1024,
            bodies_kib: 64 * 1024,
            grace: Duration::from_secs(5),
        }
    }
}

/// Something that hands out connections.
pub(crate) trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for a connection; `None` for one that is not welcome.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Option<Self::Stream>> {
        let (stream, _) = Self::accept(self).await?;
        // Answers are small; waiting for more to send only adds latency.
        stream.set_nodelay(true).ok();
        Ok(Some(stream))
    }
}

/// A Unix socket that serves root and the user of this process.
#[derive(Debug)]
pub(crate) struct LocalOnly(pub(crate) UnixListener);

impl Accept for LocalOnly {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Option<Self::Stream>> {
        let (stream, _) = self.0.accept().await?;
        let peer = stream.peer_cred()?.uid();
        let own = rustix::process::geteuid().as_raw();
        if peer != own && peer != 0 {
            tracing::warn!(peer, "refused a user on the admin socket");
            return Ok(None);
        }
        Ok(Some(stream))
    }
}

/// Serves connections until `stop` is cancelled, then lets open requests finish for [`Limits::grace`].
pub(crate) async fn serve(listener: impl Accept, router: Router, limits: Limits, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                // Out of file descriptors, mostly: pausing lets open connections finish.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            connections.spawn(refuse(stream));
            continue;
        };
        let (router, limits) = (router.clone(), limits.clone());
        let (stop, abort) = (stop.clone(), abort.clone());
        connections.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection(stream, router, &limits, stop) => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.grace, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were cut off at the end of the grace time");
        abort.cancel();
        connections.wait().await;
    }
}

async fn connection<S>(stream: S, router: Router, limits: &Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service =
        hyper::service::service_fn(move |request: Request<Incoming>| router.clone().oneshot(request));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_headers(100)
        // One head and then the body in pieces of at most this.
        .max_buf_size(limits.header_bytes.max(8192).saturating_mul(2))
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    if error.is_timeout() {
        let parts = connection.into_parts();
        // A connection that merely idles is closed without a word; one that began a request is told why.
        if !parts.read_buf.is_empty() {
            answer_raw(parts.io.into_inner(), ProblemCode::RequestTimeout).await;
        }
    }
}

async fn refuse(stream: impl AsyncRead + AsyncWrite + Unpin) {
    answer_raw(stream, ProblemCode::Busy).await;
}

/// Answers on a connection that no request will be read from.
async fn answer_raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, code: ProblemCode) {
    let status = http::StatusCode::from_u16(code.status()).unwrap_or(http::StatusCode::SERVICE_UNAVAILABLE);
    let body = serde_json::to_string(&Problem::new(code, None)).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let write = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    // The peer may have gone, and may not read: neither is worth more than a second.
    tokio::time::timeout(Duration::from_secs(1), write).await.ok();
}
