//! One file a resource.

pub(super) mod blobs;
pub(super) mod health;
pub(super) mod keys;
pub(super) mod members;
pub(super) mod node_keys;
pub(super) mod rooms;
pub(super) mod rotation;
pub(super) mod servers;
pub(crate) mod users;

use std::str::FromStr;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use unibus_membership_api::ProblemCode;
use unibus_store::record::{FieldError, SealedKey};

use super::error::ApiError;

/// Parses a field of a request.
fn parse<T: FromStr<Err = FieldError>>(text: &str) -> Result<T, ApiError> {
    text.parse::<T>()
        .map_err(|error: FieldError| ApiError::with(ProblemCode::InvalidField, error.to_string()))
}

/// Parses a sealed room key.
fn sealed(text: &str) -> Result<SealedKey, ApiError> {
    let invalid = |why: String| ApiError::with(ProblemCode::InvalidField, why);
    let bytes = BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(text.as_bytes()));
    let bytes = bytes.map_err(|_| invalid("a sealed key is neither base64 nor base64url".into()))?;
    SealedKey::from_bytes(&bytes).map_err(|error| invalid(error.to_string()))
}
