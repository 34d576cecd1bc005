use sfv::{BareItem, InnerList, Item, KeyRef, Parameters, StringRef};

use super::base::{self, BaseError, Request};
use super::input::canonical;
use super::{ALGORITHM, Component, LABEL, TAG};

/// What a caller puts into a signature.
#[derive(Clone, Copy, Debug)]
pub struct SignatureParameters<'a> {
    /// When the signature is made, in seconds since 1970.
    pub created: i64,
    /// A value never used before with this key: 1 to 64 characters of base64 or base64url; 22 random ones are good.
    pub nonce: &'a str,
    /// Ed25519 public key.
    pub key_id: [u8; 32],
}

/// The two header values of a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeaders {
    /// Value of `Signature-Input`.
    pub signature_input: String,
    /// Value of `Signature`.
    pub signature: String,
}

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError<E> {
    /// The request cannot be signed as it is.
    #[error("cannot build the signature base")]
    Base(#[source] BaseError),
    /// A parameter has a value that it cannot have.
    #[error("`{parameter}` has a value that it cannot have")]
    Parameter {
        /// Name of the parameter.
        parameter: &'static str,
    },
    /// The signer failed.
    #[error("the signer failed")]
    Signer(#[source] E),
}

/// Signs a request: all components that it has, with the tag and the label of the control plane. `signer` gets the
/// signature base and returns the Ed25519 signature of it. The content digest of a body must be in the request.
///
/// # Errors
/// [`SignError`]: a value that cannot be signed, a nonce or a time out of bounds, or the signer's own.
pub fn sign<E>(
    request: &Request<'_>,
    parameters: &SignatureParameters<'_>,
    signer: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
) -> Result<SignedHeaders, SignError<E>> {
    let mut components = vec![Component::Method, Component::Path, Component::Query];
    let optional = [
        (request.authority, Component::Authority),
        (request.content_digest, Component::ContentDigest),
        (request.content_type, Component::ContentType),
    ];
    components.extend(optional.into_iter().filter_map(|(value, component)| value.map(|_| component)));

    if !super::input::is_nonce(parameters.nonce) {
        return Err(SignError::Parameter { parameter: "nonce" });
    }
    let created =
        BareItem::try_from(parameters.created).map_err(|_| SignError::Parameter { parameter: "created" })?;
    let mut params = Parameters::new();
    params.insert(key("created")?, created);
    params.insert(key("nonce")?, text(parameters.nonce, "nonce")?);
    params.insert(key("keyid")?, text(&data_encoding::HEXLOWER.encode(&parameters.key_id), "keyid")?);
    params.insert(key("alg")?, text(ALGORITHM, "alg")?);
    params.insert(key("tag")?, text(TAG, "tag")?);
    let items = components.iter().map(|component| text(component.as_str(), "components").map(Item::new));
    let list = InnerList::with_params(items.collect::<Result<_, _>>()?, params);
    let line = canonical(list).ok_or(SignError::Parameter { parameter: "components" })?;

    let signed = base::build(request, &components, &line).map_err(SignError::Base)?;
    let signature = signer(signed.as_bytes()).map_err(SignError::Signer)?;
    Ok(SignedHeaders {
        signature_input: format!("{LABEL}={line}"),
        signature: format!("{LABEL}=:{}:", data_encoding::BASE64.encode(&signature)),
    })
}

fn key<E>(name: &'static str) -> Result<sfv::Key, SignError<E>> {
    KeyRef::from_str(name).map(ToOwned::to_owned).map_err(|_| SignError::Parameter { parameter: name })
}

fn text<E>(value: &str, parameter: &'static str) -> Result<BareItem, SignError<E>> {
    StringRef::from_str(value)
        .map(|value| BareItem::String(value.to_owned()))
        .map_err(|_| SignError::Parameter { parameter })
}
