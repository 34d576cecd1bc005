//! Problem documents (RFC 9457): what an error looks like, with codes that stay.

use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document. `title` is for people; programs look at `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI that names the problem: `urn:unibus:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means, in one line that never changes.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: ProblemCode,
    /// What was wrong with this request; never what the store holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    /// Makes the document of a code.
    #[must_use]
    pub fn new(code: ProblemCode, detail: Option<String>) -> Self {
        Self {
            kind: format!("urn:unibus:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail,
        }
    }
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Stable code of a problem, with its HTTP status (SPEC, section 5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ProblemCode { $($(#[$doc])* #[serde(rename = $code)] $name,)* }

        impl ProblemCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Gives the code as it stands in the document.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Gives the HTTP status.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Gives the title.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

problem_codes! {
    /// The body is not the JSON that this request takes.
    MalformedBody = "malformed_body", 400, "the body is not what this request takes";
    /// A field has a value that it cannot have.
    InvalidField = "invalid_field", 400, "a field has a value that it cannot have";
    /// The query string is not what this request takes.
    InvalidQuery = "invalid_query", 400, "the query is not what this request takes";
    /// The subject is not a NATS subject without wildcards.
    BadSubject = "bad_subject", 400, "the subject is not a valid subject without wildcards";
    /// Rooms without encryption are refused on a public bind.
    ClearRoomRefused = "clear_room_refused", 400, "rooms without encryption are refused on a public bind";
    /// A rekey must carry a key for exactly the members.
    KeysNotMembers = "keys_not_members", 400, "the keys are not for exactly the members";
    /// No signature, where one is needed.
    SignatureMissing = "signature_missing", 401, "this request needs a signature";
    /// The signature fields cannot be used.
    SignatureMalformed = "signature_malformed", 401, "the signature fields cannot be used";
    /// `created` is too far from the time of the server.
    SignatureExpired = "signature_expired", 401, "the signature is outside of the time window";
    /// The signature does not verify.
    SignatureInvalid = "signature_invalid", 401, "the signature does not verify";
    /// The nonce was used before.
    SignatureReplayed = "signature_replayed", 401, "the nonce was used before";
    /// The body is not the one that was signed.
    DigestMismatch = "digest_mismatch", 401, "the body does not match its content digest";
    /// The signing key does not belong to an active user.
    SignerUnknown = "signer_unknown", 401, "the signing key does not belong to an active user";
    /// This request is made for somebody, and nobody is named.
    CallerUnknown = "caller_unknown", 401, "this request needs to know its caller";
    /// Only administrators may do this.
    NotAdmin = "not_admin", 403, "only an administrator may do this";
    /// Only the owner of the room may do this.
    NotOwner = "not_owner", 403, "only the owner of the room may do this";
    /// Only members of the room may do this.
    NotMember = "not_member", 403, "only a member of the room may do this";
    /// The caller may not do this.
    Forbidden = "forbidden", 403, "the caller may not do this";
    /// There is no such thing.
    NotFound = "not_found", 404, "there is no such thing here";
    /// The path exists, and not for this method.
    MethodNotAllowed = "method_not_allowed", 405, "this path does not take this method";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, "the request took too long";
    /// The user is registered already; nothing was changed.
    UserExists = "user_exists", 409, "the user is registered already";
    /// The endpoint is a member already; nothing was changed.
    MemberExists = "member_exists", 409, "the endpoint is a member already";
    /// The key epoch is not the current one plus 1.
    KeyEpochConflict = "key_epoch_conflict", 409, "the key epoch is not the current one plus 1";
    /// The request contradicts the present state.
    Conflict = "conflict", 409, "the request contradicts the present state";
    /// The body is longer than this request takes.
    BodyTooLarge = "body_too_large", 413, "the body is too long";
    /// The body is not of the media type that this request takes.
    UnsupportedMediaType = "unsupported_media_type", 415, "the body is not of the media type this request takes";
    /// The headers are longer than the server takes.
    HeadersTooLarge = "headers_too_large", 431, "the headers are too long";
    /// The server has a fault of its own.
    Internal = "internal", 500, "the server failed";
    /// The store does not answer; nothing was decided, so the request is denied.
    StoreUnavailable = "store_unavailable", 503, "the store does not answer";
    /// The node has found that its data was changed or rolled back, and serves nothing.
    StoreDistrusted = "store_distrusted", 503, "the node does not trust its data";
    /// The server is at its limit of connections or is stopping.
    Busy = "busy", 503, "the server cannot take this request now";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_survive_json() {
        let mut seen = std::collections::BTreeSet::new();
        for &code in ProblemCode::ALL {
            assert!(seen.insert(code.as_str()));
            let text = serde_json::to_string(&Problem::new(code, None)).unwrap();
            let back: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(back.code, code);
            assert_eq!(back.status, code.status());
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn specification_lists_every_code_with_its_status() {
        let spec = include_str!("../SPEC.md");
        for &code in ProblemCode::ALL {
            let row = format!("| {} | `{}` |", code.status(), code.as_str());
            assert!(spec.contains(&row), "SPEC.md lacks {row}");
        }
    }
}
