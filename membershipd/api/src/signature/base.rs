use std::borrow::Cow;
use std::fmt::Write as _;

use super::Component;

/// What a signature covers of a request. Header values are the lines of the field, trimmed and joined by `, `.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Method, as on the wire.
    pub method: &'a str,
    /// Path as on the wire, not decoded; empty counts as `/`.
    pub path: &'a str,
    /// Query as on the wire, without its question mark; none if there was no question mark.
    pub query: Option<&'a str>,
    /// Value of `Host`.
    pub authority: Option<&'a str>,
    /// Value of `Content-Digest`.
    pub content_digest: Option<&'a str>,
    /// Value of `Content-Type`.
    pub content_type: Option<&'a str>,
}

/// Why no signature base can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The signature covers something that the request does not have.
    #[error("the request has no `{}`, which the signature covers", .0.as_str())]
    Absent(Component),
    /// The request has something that the signature must cover and does not.
    #[error("the request has a `{}`, which the signature does not cover", .0.as_str())]
    Uncovered(Component),
    /// A value cannot stand on a line of its own.
    #[error("`{}` has characters that cannot be signed", .0.as_str())]
    Characters(Component),
}

impl<'a> Request<'a> {
    fn value(&self, component: Component) -> Option<Cow<'a, str>> {
        match component {
            Component::Method => Some(Cow::Borrowed(self.method)),
            Component::RequestTarget => Some(Cow::Owned(match self.query {
                None => self.path.to_owned(),
                Some(query) => format!("{}?{query}", self.path),
            })),
            Component::Path if self.path.is_empty() => Some(Cow::Borrowed("/")),
            Component::Path => Some(Cow::Borrowed(self.path)),
            Component::Query => Some(Cow::Owned(format!("?{}", self.query.unwrap_or_default()))),
            Component::ContentDigest => self.content_digest.map(Cow::Borrowed),
            Component::ContentType => self.content_type.map(Cow::Borrowed),
            Component::Authority => self.authority.map(|host| {
                let host = host.to_ascii_lowercase();
                Cow::Owned(host.strip_suffix(":80").map(str::to_owned).unwrap_or(host))
            }),
        }
    }
}

/// Builds the signature base: one line a component, then the parameters (RFC 9421, section 2.5).
pub(super) fn build(
    request: &Request<'_>,
    components: &[Component],
    parameters: &str,
) -> Result<String, BaseError> {
    let covers_query = components.iter().any(|c| matches!(c, Component::Query | Component::RequestTarget));
    if request.query.is_some() && !covers_query {
        return Err(BaseError::Uncovered(Component::Query));
    }
    let mut base = String::with_capacity(512);
    for &component in components {
        let value = request.value(component).ok_or(BaseError::Absent(component))?;
        // A line break in a value would let one component pass for two.
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(BaseError::Characters(component));
        }
        writeln!(base, "\"{}\": {value}", component.as_str())
            .map_err(|_| BaseError::Characters(component))?;
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(parameters);
    Ok(base)
}
