//! HTTP Message Signatures (RFC 9421) as the control plane uses them: SPEC, sections 2 to 4.
//!
//! Everything in here is a function of text. [`SignatureInput::parse`] reads the two header fields, [`SignatureInput::base`]
//! builds the bytes that were signed, and [`sign`] makes the two fields with a closure that holds the key.

mod base;
mod digest;
mod input;
mod sign;

pub use base::{BaseError, Request};
pub use digest::{DigestError, format_content_digest, parse_content_digest};
pub use input::{ParseError, SignatureInput};
pub use sign::{SignError, SignatureParameters, SignedHeaders, sign};

/// Bytes of `Signature-Input` at most, all of its lines together (SPEC, section 2).
pub const MAX_INPUT_BYTES: usize = 4096;
/// Bytes of `Signature` at most, all of its lines together (SPEC, section 2).
pub const MAX_SIGNATURE_BYTES: usize = 1024;
/// Signatures on one request at most (SPEC, section 2).
pub const MAX_SIGNATURES: usize = 4;
/// Covered components of one signature at most (SPEC, section 2).
pub const MAX_COMPONENTS: usize = 8;
/// Characters of a nonce at least (SPEC, section 4).
pub const MIN_NONCE_CHARS: usize = 1;
/// Characters of a nonce at most (SPEC, section 4).
pub const MAX_NONCE_CHARS: usize = 64;
/// Seconds that `created` may be away from the server's time, in both directions (SPEC, section 4).
pub const WINDOW_SECONDS: i64 = 60;
/// The only algorithm, as it stands in `alg`.
pub const ALGORITHM: &str = "ed25519";
/// Tag that picks our signature where there are several.
pub const TAG: &str = "unibus";
/// Label that [`sign`] gives its signature.
pub const LABEL: &str = "unibus";
/// Header field of the covered components and parameters.
pub const SIGNATURE_INPUT_FIELD: &str = "signature-input";
/// Header field of the signatures.
pub const SIGNATURE_FIELD: &str = "signature";
/// Header field of the body's digest (RFC 9530).
pub const CONTENT_DIGEST_FIELD: &str = "content-digest";

/// What a signature can cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Component {
    /// `@method`, always needed.
    Method,
    /// `@path`, needed unless [`Component::RequestTarget`] is covered.
    Path,
    /// `@query`, needed where the request has a query, unless [`Component::RequestTarget`] is covered.
    Query,
    /// `@request-target`: path and query in one.
    RequestTarget,
    /// `content-digest`, needed when there is a body.
    ContentDigest,
    /// `content-type`, optional.
    ContentType,
    /// `@authority`, optional.
    Authority,
}

impl Component {
    const ALL: [Self; 7] = [
        Self::Method,
        Self::Path,
        Self::Query,
        Self::RequestTarget,
        Self::ContentDigest,
        Self::ContentType,
        Self::Authority,
    ];

    /// Gives the component's identifier.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "@method",
            Self::Path => "@path",
            Self::Query => "@query",
            Self::RequestTarget => "@request-target",
            Self::ContentDigest => CONTENT_DIGEST_FIELD,
            Self::ContentType => "content-type",
            Self::Authority => "@authority",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|component| component.as_str() == name)
    }
}
