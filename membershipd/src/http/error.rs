//! What a caller gets when something goes wrong: a problem document with a stable code and no detail of the store.

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use unibus_keyfile::error::ErrorClass;
use unibus_membership_api::{Problem, ProblemCode, health::AtRestState, problem::PROBLEM_JSON};
use unibus_store::error::StoreError;

/// An error on its way to a caller.
#[derive(Debug)]
pub struct ApiError {
    code: ProblemCode,
    detail: Option<String>,
    distrust: Option<AtRestState>,
}

/// Mark on a response: while answering, the store was found not to be what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distrust(pub(crate) AtRestState);

impl ApiError {
    /// An error without detail.
    #[must_use]
    pub fn new(code: ProblemCode) -> Self {
        Self { code, detail: None, distrust: None }
    }

    /// An error with a detail that speaks of the request.
    #[must_use]
    pub fn with(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: Some(detail.into()), distrust: None }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// The same error, with `code` in the place of the general word for "not allowed".
    #[must_use]
    pub fn or_denied(self, code: ProblemCode) -> Self {
        self.replace(ProblemCode::Forbidden, code)
    }

    /// The same error, with `new` in the place of `old`.
    #[must_use]
    pub fn replace(mut self, old: ProblemCode, new: ProblemCode) -> Self {
        if self.code == old {
            self.code = new;
        }
        self
    }
}

/// State that an error of the store puts the node into, if it does.
#[must_use]
pub(crate) fn distrust(error: &StoreError) -> Option<AtRestState> {
    match error.class() {
        ErrorClass::Tampered | ErrorClass::Corrupt | ErrorClass::WrongKey => Some(AtRestState::Tampered),
        ErrorClass::RolledBack => Some(AtRestState::RolledBack),
        _ => None,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let of_the_request = match &error {
            StoreError::AlreadyExists { .. } => Some(ProblemCode::Conflict),
            StoreError::AlreadyMember => Some(ProblemCode::MemberExists),
            StoreError::Conflict { .. } => Some(ProblemCode::KeyEpochConflict),
            StoreError::LastOwner | StoreError::LastAdmin => Some(ProblemCode::Conflict),
            StoreError::NotExactlyMembers { .. } => Some(ProblemCode::KeysNotMembers),
            StoreError::Invalid { .. } => Some(ProblemCode::InvalidField),
            StoreError::Field(field) => return Self::with(ProblemCode::InvalidField, field.to_string()),
            StoreError::NotFound { .. } => return Self::new(ProblemCode::NotFound),
            StoreError::NotAuthorized => return Self::new(ProblemCode::Forbidden),
            _ => None,
        };
        if let Some(code) = of_the_request {
            return Self::with(code, error.to_string());
        }
        tracing::error!(code = error.code(), %error, "the store failed");
        let distrust = distrust(&error);
        let code =
            if distrust.is_some() { ProblemCode::StoreDistrusted } else { ProblemCode::StoreUnavailable };
        Self { code, detail: None, distrust }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&Problem::new(self.code, self.detail)).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
            headers.insert("accept-signature", HeaderValue::from_static(ACCEPT_SIGNATURE));
        }
        if let Some(state) = self.distrust {
            response.extensions_mut().insert(Distrust(state));
        }
        response
    }
}

/// What a signature must cover (RFC 9421, section 5.1).
const ACCEPT_SIGNATURE: &str = "unibus=(\"@method\" \"@path\" \"@query\" \"content-digest\");\
                                created;nonce;keyid;alg=\"ed25519\";tag=\"unibus\"";
