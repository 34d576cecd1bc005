//! Parts of a request, parsed once, with our own answers where they cannot be.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use http::{header::CONTENT_TYPE, request::Parts};
use serde::de::DeserializeOwned;
use unibus_membership_api::ProblemCode;
use unibus_store::{record::SignPub, store::Actor};

use super::error::ApiError;

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The signature verified; an active user.
    Verified(SignPub),
    /// Stated, and not verified: with `--bus-auth off`, or `soft` and no valid signature.
    Stated(SignPub),
    /// Nobody is named.
    Nobody,
}

impl Caller {
    /// The key of the caller, for routes that cannot do without one.
    pub(crate) fn key(self) -> Result<SignPub, ApiError> {
        match self {
            Self::Verified(key) | Self::Stated(key) => Ok(key),
            Self::Nobody => Err(ApiError::new(ProblemCode::CallerUnknown)),
        }
    }

    /// The caller as the store knows it, for routes that cannot do without one.
    pub(crate) fn signer(self) -> Result<Actor, ApiError> {
        self.key().map(Actor::Signer)
    }

    /// The caller as the store knows it, for the routes of administrators. Without verification these are open: what a
    /// caller merely states of itself, it could also leave out.
    pub(crate) fn actor(self) -> Actor {
        match self {
            Self::Verified(key) => Actor::Signer(key),
            Self::Stated(_) | Self::Nobody => Actor::Operator,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Without the layer that authenticates there is no caller, not even an unknown one.
        parts.extensions.get::<Self>().copied().ok_or_else(|| ApiError::new(ProblemCode::SignatureMissing))
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json =
            request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                value
                    .split(';')
                    .next()
                    .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
            });
        if !is_json {
            return Err(ApiError::with(
                ProblemCode::UnsupportedMediaType,
                "`Content-Type` must be `application/json`",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::new(ProblemCode::MalformedBody))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::with(ProblemCode::MalformedBody, error.to_string()))?;
        Ok(Self(value))
    }
}

/// The one parameter in a path. What cannot be parsed names nothing: not found.
#[derive(Debug)]
pub(crate) struct Param<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Param<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let not_found = || ApiError::new(ProblemCode::NotFound);
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        text.parse().map(Self).map_err(|_| not_found())
    }
}

/// The two parameters in a path. What cannot be parsed names nothing: not found.
#[derive(Debug)]
pub(crate) struct Params<A, B>(pub(crate) A, pub(crate) B);

impl<S: Send + Sync, A: FromStr, B: FromStr> FromRequestParts<S> for Params<A, B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let not_found = || ApiError::new(ProblemCode::NotFound);
        let Path((a, b)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        Ok(Self(a.parse().map_err(|_| not_found())?, b.parse().map_err(|_| not_found())?))
    }
}

/// The query string.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(ProblemCode::InvalidQuery))?;
        Ok(Self(value))
    }
}
