use sfv::{BareItem, Dictionary, FieldType as _, InnerList, List, ListEntry, Parser};

use super::base::{self, BaseError, Request};
use super::{
    ALGORITHM, Component, MAX_COMPONENTS, MAX_INPUT_BYTES, MAX_NONCE_CHARS, MAX_SIGNATURE_BYTES,
    MAX_SIGNATURES, MIN_NONCE_CHARS, TAG, WINDOW_SECONDS,
};

/// A signature as it came with a request: well-formed, and not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SignatureInput {
    components: Vec<Component>,
    created: i64,
    expires: Option<i64>,
    nonce: String,
    key_id: [u8; 32],
    parameters: String,
    signature: [u8; 64],
}

// Neither nonce nor signature belongs into a log, whoever prints this.
impl std::fmt::Debug for SignatureInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignatureInput")
            .field("components", &self.components)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// Why the signature fields of a request cannot be used. Nothing of their content is in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A field is longer than any honest one.
    #[error("`{field}` has {found} bytes, at most {limit} are taken")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// Bytes found.
        found: usize,
        /// Limit.
        limit: usize,
    },
    /// Not a dictionary of structured fields (RFC 9651).
    #[error("`{field}` is not a structured dictionary")]
    Syntax {
        /// Name of the field.
        field: &'static str,
    },
    /// Not in the one form in which such a value is written; also a label or parameter given twice.
    #[error("`{field}` is not in canonical form")]
    NotCanonical {
        /// Name of the field.
        field: &'static str,
    },
    /// More signatures than are taken.
    #[error("there are {found} signatures, at most {MAX_SIGNATURES} are taken")]
    TooMany {
        /// Signatures found.
        found: usize,
    },
    /// None of the signatures is for us.
    #[error("no signature has the tag `{TAG}`, and there is not exactly one without a tag")]
    NotForUs,
    /// More than one signature is for us.
    #[error("more than one signature has the tag `{TAG}`")]
    Ambiguous,
    /// A covered component is not in quotes, has parameters, or is none that we know.
    #[error("a covered component is not supported")]
    UnsupportedComponent,
    /// A component is covered twice.
    #[error("`{}` is covered twice", .0.as_str())]
    DuplicateComponent(Component),
    /// More components than are taken.
    #[error("{found} components are covered, at most {MAX_COMPONENTS} are taken")]
    TooManyComponents {
        /// Components found.
        found: usize,
    },
    /// Something that must be covered is not.
    #[error("`{}` is not covered", .0.as_str())]
    MissingComponent(Component),
    /// A parameter that must be there is not.
    #[error("the parameter `{0}` is missing")]
    MissingParameter(&'static str),
    /// A parameter that is none of ours.
    #[error("there is a parameter that is not supported")]
    UnknownParameter,
    /// A parameter has a value of another type, or one that it cannot have.
    #[error("the parameter `{0}` has a value that it cannot have")]
    BadParameter(&'static str),
    /// `Signature` does not have the label.
    #[error("`Signature` lacks the label that `Signature-Input` has")]
    MissingSignature,
    /// Not an Ed25519 signature.
    #[error("the signature is not a byte sequence of 64 bytes")]
    SignatureLength,
}

const INPUT: &str = "Signature-Input";
const SIGNATURE: &str = "Signature";

impl SignatureInput {
    /// Reads the values of `Signature-Input` and `Signature`; the lines of a field that came in several are joined by `, `.
    /// Checks in the order of SPEC, section 2.
    ///
    /// # Errors
    /// [`ParseError`]: one variant a check.
    pub fn parse(signature_input: &str, signature: &str) -> Result<Self, ParseError> {
        let inputs = dictionary(INPUT, signature_input, MAX_INPUT_BYTES)?;
        let signatures = dictionary(SIGNATURE, signature, MAX_SIGNATURE_BYTES)?;
        let found = inputs.len().max(signatures.len());
        if found > MAX_SIGNATURES {
            return Err(ParseError::TooMany { found });
        }
        let (label, list) = pick(&inputs)?;
        let components = components(list)?;
        let parameters = Parameters::read(list)?;
        let signature = match signatures.get(label) {
            None => return Err(ParseError::MissingSignature),
            Some(ListEntry::Item(item)) if item.params.is_empty() => item
                .bare_item
                .as_byte_sequence()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(ParseError::SignatureLength)?,
            Some(_) => return Err(ParseError::SignatureLength),
        };
        let line = canonical(list.clone()).ok_or(ParseError::Syntax { field: INPUT })?;
        Ok(Self {
            components,
            created: parameters.created,
            expires: parameters.expires,
            nonce: parameters.nonce,
            key_id: parameters.key_id,
            parameters: line,
            signature,
        })
    }

    /// Builds the bytes that the signature is over.
    ///
    /// # Errors
    /// [`BaseError`]: the request lacks something that is covered, or a value has a control character.
    pub fn base(&self, request: &Request<'_>) -> Result<String, BaseError> {
        base::build(request, &self.components, &self.parameters)
    }

    /// Says whether a component is covered.
    #[must_use]
    pub fn covers(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    /// Says whether `created` is within [`WINDOW_SECONDS`] of `now`, and `expires`, if there is one, not before it;
    /// all in seconds since 1970.
    #[must_use]
    pub fn is_in_window(&self, now: i64) -> bool {
        self.created.abs_diff(now) <= WINDOW_SECONDS.unsigned_abs()
            && self.expires.is_none_or(|expires| now <= expires)
    }

    /// Seconds since 1970 at which the signature says that it was made.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.created
    }

    /// Nonce of the signature.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Ed25519 public key that the signature says it was made with.
    #[must_use]
    pub fn key_id(&self) -> &[u8; 32] {
        &self.key_id
    }

    /// The signature itself.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

/// Says whether a text can be a nonce (SPEC, section 4).
pub(super) fn is_nonce(text: &str) -> bool {
    (MIN_NONCE_CHARS..=MAX_NONCE_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte))
}

/// Writes an inner list in its one form.
pub(super) fn canonical(list: InnerList) -> Option<String> {
    let list: List = vec![ListEntry::InnerList(list)];
    list.serialize()
}

fn dictionary(field: &'static str, text: &str, limit: usize) -> Result<Dictionary, ParseError> {
    if text.len() > limit {
        return Err(ParseError::TooLong { field, found: text.len(), limit });
    }
    let dictionary: Dictionary = Parser::new(text).parse().map_err(|_| ParseError::Syntax { field })?;
    // A structured dictionary that names a member twice keeps the last one, silently. Two readers that disagree about
    // that would verify different things, so only the form that a serializer writes is taken.
    if dictionary.serialize().as_deref() != Some(text) {
        return Err(ParseError::NotCanonical { field });
    }
    Ok(dictionary)
}

/// Picks our signature: the one tagged for us, or else the only one without a tag.
fn pick(inputs: &Dictionary) -> Result<(&sfv::Key, &InnerList), ParseError> {
    let mut tagged = Vec::new();
    let mut untagged = Vec::new();
    for (label, entry) in inputs {
        let ListEntry::InnerList(list) = entry else { return Err(ParseError::Syntax { field: INPUT }) };
        match list.params.get("tag") {
            None => untagged.push((label, list)),
            Some(tag) if tag.as_string().is_some_and(|tag| tag.as_str() == TAG) => tagged.push((label, list)),
            Some(_) => {}
        }
    }
    match (tagged.as_slice(), untagged.as_slice()) {
        ([one], _) | ([], [one]) => Ok(*one),
        ([], _) => Err(ParseError::NotForUs),
        _ => Err(ParseError::Ambiguous),
    }
}

fn components(list: &InnerList) -> Result<Vec<Component>, ParseError> {
    if list.items.len() > MAX_COMPONENTS {
        return Err(ParseError::TooManyComponents { found: list.items.len() });
    }
    let mut components = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let name = item.bare_item.as_string().filter(|_| item.params.is_empty());
        let component = name
            .and_then(|name| Component::from_name(name.as_str()))
            .ok_or(ParseError::UnsupportedComponent)?;
        if components.contains(&component) {
            return Err(ParseError::DuplicateComponent(component));
        }
        components.push(component);
    }
    if !components.contains(&Component::Method) {
        return Err(ParseError::MissingComponent(Component::Method));
    }
    if !components.contains(&Component::Path) && !components.contains(&Component::RequestTarget) {
        return Err(ParseError::MissingComponent(Component::Path));
    }
    Ok(components)
}

struct Parameters {
    created: i64,
    expires: Option<i64>,
    nonce: String,
    key_id: [u8; 32],
}

impl Parameters {
    fn read(list: &InnerList) -> Result<Self, ParseError> {
        let known = ["created", "expires", "nonce", "keyid", "alg", "tag"];
        if list.params.keys().any(|name| !known.contains(&name.as_str())) {
            return Err(ParseError::UnknownParameter);
        }
        let get = |name: &'static str| list.params.get(name).ok_or(ParseError::MissingParameter(name));
        let created = match get("created")? {
            BareItem::Integer(seconds) => i64::from(*seconds),
            _ => return Err(ParseError::BadParameter("created")),
        };
        let expires = match list.params.get("expires") {
            None => None,
            Some(BareItem::Integer(seconds)) => Some(i64::from(*seconds)),
            Some(_) => return Err(ParseError::BadParameter("expires")),
        };
        let nonce = get("nonce")?.as_string().map(|text| text.as_str()).filter(|text| is_nonce(text));
        let nonce = nonce.ok_or(ParseError::BadParameter("nonce"))?.to_owned();
        let key_id = get("keyid")?
            .as_string()
            .and_then(|text| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_str().as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ParseError::BadParameter("keyid"))?;
        let is_ours = |alg: &BareItem| alg.as_string().is_some_and(|text| text.as_str() == ALGORITHM);
        if list.params.get("alg").is_some_and(|alg| !is_ours(alg)) {
            return Err(ParseError::BadParameter("alg"));
        }
        Ok(Self { created, expires, nonce, key_id })
    }
}
