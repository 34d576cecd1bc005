//! Who makes a request: SPEC of the API, sections 2 to 4.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use unibus_keyfile::{digest::sha256, suite};
use unibus_membership_api::{
    ProblemCode,
    health::AuthMode,
    paths,
    signature::{self as api, Component, SignatureInput},
};
use unibus_store::{
    record::{SignPub, Timestamp},
    store::{Nonce, Strength},
};

use super::{error::ApiError, extract::Caller, router::App};
use crate::clock;

/// Header field that names the caller where signatures are not verified.
const KEY_ID_FIELD: &str = "unibus-key-id";

/// Finds out who makes the request, reads its body, and compares the two. Nothing behind this layer is reached without.
pub(super) async fn authenticate(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    app.posture.ensure_trusted()?;
    let (mut parts, body) = request.into_parts();
    if app.auth != AuthMode::Enforce {
        is_not_of_a_web_page(&parts.headers)?;
    }
    let limit = body_limit(&parts);
    check_length(&parts.headers, limit)?;
    let verified = match app.auth {
        AuthMode::Off => None,
        _ => Some(verify(&app, &parts).await),
    };
    // Under `enforce` a stranger does not get as far as making us hold a body.
    let verified = match (app.auth, verified) {
        (AuthMode::Enforce, Some(verified)) => Some(Ok(verified?)),
        (AuthMode::Enforce, None) => return Err(ApiError::new(ProblemCode::SignatureMissing)),
        (_, verified) => verified,
    };
    let (body, _held) = read_body(&app, body, &parts.headers, limit).await?;
    let verified = verified.map(|result| result.and_then(|signature| signature.check_body(&body)));
    let caller = match (app.auth, verified) {
        (AuthMode::Enforce, Some(verified)) => Caller::Verified(verified?),
        (AuthMode::Enforce, None) => return Err(ApiError::new(ProblemCode::SignatureMissing)),
        (_, Some(Ok(signer))) => Caller::Verified(signer),
        (_, Some(Err(error))) => {
            tracing::warn!(
                code = error.code().as_str(),
                "request would be refused under `--bus-auth enforce`"
            );
            stated(&parts.headers)
        }
        (_, None) => stated(&parts.headers),
    };
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

/// A signature that verified, and what it says of the body.
struct Verified {
    signer: SignPub,
    /// SHA-256 that the body must have; none if the signature covers no digest.
    digest: Option<[u8; 32]>,
}

impl Verified {
    fn check_body(self, body: &[u8]) -> Result<SignPub, ApiError> {
        match self.digest {
            Some(digest) if digest != sha256(&[body]) => Err(ApiError::new(ProblemCode::DigestMismatch)),
            None if !body.is_empty() => Err(ApiError::with(
                ProblemCode::SignatureMalformed,
                "the request has a body, and the signature does not cover `content-digest`",
            )),
            _ => Ok(self.signer),
        }
    }
}

async fn verify(app: &App, parts: &Parts) -> Result<Verified, ApiError> {
    let malformed =
        |error: &dyn std::error::Error| ApiError::with(ProblemCode::SignatureMalformed, error.to_string());
    let fields =
        (field(&parts.headers, api::SIGNATURE_INPUT_FIELD)?, field(&parts.headers, api::SIGNATURE_FIELD)?);
    let (Some(input), Some(signature)) = fields else {
        return Err(ApiError::new(ProblemCode::SignatureMissing));
    };
    let signature = SignatureInput::parse(&input, &signature).map_err(|error| malformed(&error))?;
    let now = app.clock.now();
    let expired = || ApiError::new(ProblemCode::SignatureExpired);
    // The end of the window to the microsecond, because the store forgets a nonce at that very time.
    let expires_at = signature.created().saturating_add(api::WINDOW_SECONDS).saturating_mul(1_000_000);
    let expires_at = Timestamp::from_micros(expires_at).map_err(|_| expired())?;
    if !signature.is_in_window(clock::seconds(now)) || now >= expires_at {
        return Err(expired());
    }

    let content_digest = field(&parts.headers, api::CONTENT_DIGEST_FIELD)?;
    let content_type = field(&parts.headers, header::CONTENT_TYPE.as_str())?;
    let host = field(&parts.headers, header::HOST.as_str())?;
    let base = signature.base(&api::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: parts.uri.authority().map(|authority| authority.as_str()).or(host.as_deref()),
        content_digest: content_digest.as_deref(),
        content_type: content_type.as_deref(),
    });
    let base = base.map_err(|error| malformed(&error))?;
    if !suite::verify_bare(signature.key_id(), base.as_bytes(), signature.signature()) {
        return Err(ApiError::new(ProblemCode::SignatureInvalid));
    }
    let digest = match content_digest.filter(|_| signature.covers(Component::ContentDigest)) {
        Some(text) => Some(api::parse_content_digest(&text).map_err(|error| malformed(&error))?),
        None => None,
    };

    let signer =
        SignPub::from_bytes(*signature.key_id()).map_err(|_| ApiError::new(ProblemCode::SignerUnknown))?;
    // Not `is_authorized`, which answers no when the store fails: the caller is to learn that it is not its fault.
    if !app.store.user(signer, Strength::Local).await?.is_some_and(|user| user.is_active()) {
        return Err(ApiError::new(ProblemCode::SignerUnknown));
    }
    // Last, so that nobody but an active user writes to the store, and a nonce is used up by nobody but its owner.
    let nonce = Nonce::from_bytes(signature.nonce().as_bytes()).map_err(|error| malformed(&error))?;
    if !app.store.claim_nonce(signer, nonce, expires_at, now).await? {
        return Err(ApiError::new(ProblemCode::SignatureReplayed));
    }
    Ok(Verified { signer, digest })
}

/// Without signatures, only who reaches the port is let in. A web page that the operator happens to look at reaches it as
/// well: across origins, or by a name of its own that it lets point here. Browsers cannot hide either.
fn is_not_of_a_web_page(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = field(headers, header::HOST.as_str())?.unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(&*host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
    let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok();
    if is_local && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    Err(ApiError::with(ProblemCode::Forbidden, "without signatures, requests of web pages are not taken"))
}

/// The caller as stated: by a well-formed signature, or by a field of its own.
fn stated(headers: &HeaderMap) -> Caller {
    let signature = || {
        let input = field(headers, api::SIGNATURE_INPUT_FIELD).ok()??;
        let signature = field(headers, api::SIGNATURE_FIELD).ok()??;
        let input = SignatureInput::parse(&input, &signature).ok()?;
        SignPub::from_bytes(*input.key_id()).ok()
    };
    let plain = || field(headers, KEY_ID_FIELD).ok()??.parse().ok();
    signature().or_else(plain).map_or(Caller::Nobody, Caller::Stated)
}

/// The value of a field: its lines, trimmed and joined.
fn field<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
    let mut joined: Option<Cow<'a, str>> = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| {
            ApiError::with(ProblemCode::SignatureMalformed, "a signed field has characters beyond ASCII")
        })?;
        joined = Some(match joined {
            None => Cow::Borrowed(text.trim()),
            Some(before) => Cow::Owned(format!("{before}, {}", text.trim())),
        });
    }
    Ok(joined)
}

fn body_limit(parts: &Parts) -> usize {
    let is_blob = parts.method == Method::POST && parts.uri.path() == paths::BLOBS;
    if is_blob { paths::MAX_BLOB_BYTES } else { paths::MAX_JSON_BYTES }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::with(ProblemCode::BodyTooLarge, format!("at most {limit} bytes are taken"))
}

fn check_length(headers: &HeaderMap, limit: usize) -> Result<(), ApiError> {
    match announced(headers) {
        Some(length) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body within the limits of size, time, and memory for all bodies together.
async fn read_body<'a>(
    app: &'a App,
    body: Body,
    headers: &HeaderMap,
    limit: usize,
) -> Result<(Bytes, tokio::sync::SemaphorePermit<'a>), ApiError> {
    let reading = async {
        let kib = announced(headers).unwrap_or(limit).div_ceil(1024);
        let kib = u32::try_from(kib.min(app.limits.bodies_kib)).unwrap_or(u32::MAX);
        let held = app.bodies.acquire_many(kib).await.map_err(|_| ApiError::new(ProblemCode::Busy))?;
        let read = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large(limit)
            } else {
                ApiError::with(ProblemCode::MalformedBody, "the body broke off")
            }
        })?;
        Ok((read.to_bytes(), held))
    };
    tokio::time::timeout(app.limits.body_timeout, reading)
        .await
        .map_err(|_| ApiError::new(ProblemCode::RequestTimeout))?
}
