//! Why a field or a record is refused.

use super::Kind;

/// Why text or bytes are not a field of a record. Names the field and the rule, never the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// Empty, or too long.
    #[error("`{field}` has {found} bytes, wanted 1 to {limit}")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes found.
        found: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// Not of the form the field has.
    #[error("`{field}` is malformed, wanted {wanted}")]
    Form {
        /// The field.
        field: &'static str,
        /// The rule that is broken.
        wanted: &'static str,
    },
    /// A number outside its range.
    #[error("`{field}` is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
    /// A public key of small order, the all-zero key among them.
    #[error("`{field}` is a weak key: a point of small order")]
    WeakKey {
        /// The field.
        field: &'static str,
    },
    /// An endpoint that is not the hash of the signing key beside it.
    #[error("`endpoint` is not the hash of `sign_pub`")]
    EndpointMismatch,
}

/// Why bytes are not a record (SPEC store, section 1.5: the checks in their order).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than any record may be.
    #[error("record of {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The bytes end before the record does.
    #[error("record ends early, at byte {offset}")]
    Truncated {
        /// Where it ends.
        offset: usize,
    },
    /// No such record kind.
    #[error("unknown record kind {found}")]
    Kind {
        /// The byte found.
        found: u8,
    },
    /// The identity does not parse.
    #[error("identity of a {kind} is malformed")]
    Identity {
        /// The record's kind.
        kind: Kind,
    },
    /// A record format that this version cannot read.
    #[error("record format version {found}, this release reads version {known}")]
    Version {
        /// The byte found.
        found: u8,
        /// The version this release reads.
        known: u8,
    },
    /// The body is not the CBOR that a record may use.
    #[error("body of a {kind} is malformed at byte {offset}")]
    Cbor {
        /// The record's kind.
        kind: Kind,
        /// Offset in the body, behind the version byte.
        offset: usize,
    },
    /// An array, map or string without a length.
    #[error("body of a {kind} uses an indefinite length at byte {offset}")]
    Indefinite {
        /// The record's kind.
        kind: Kind,
        /// Offset in the body, behind the version byte.
        offset: usize,
    },
    /// A key of the map that comes twice or after a greater one.
    #[error("field {key} of a {kind} comes twice or out of order")]
    Order {
        /// The record's kind.
        kind: Kind,
        /// The key.
        key: u64,
    },
    /// Bytes behind the record.
    #[error("{count} bytes follow a {kind}")]
    Trailing {
        /// The record's kind.
        kind: Kind,
        /// How many.
        count: usize,
    },
    /// A mandatory field is not there.
    #[error("field `{field}` of a {kind} is missing")]
    Missing {
        /// The record's kind.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
    /// A field is there and does not parse.
    #[error("field `{field}` of a {kind} is invalid")]
    Field {
        /// The record's kind.
        kind: Kind,
        /// The field.
        field: &'static str,
        /// The rule it breaks; none if it has another CBOR type.
        source: Option<FieldError>,
    },
    /// A value is spelt in another way than the one way there is.
    #[error("body of a {kind} is not in canonical form")]
    NotCanonical {
        /// The record's kind.
        kind: Kind,
    },
}
