//! The body of a record: a format version and an integer-keyed CBOR map, read strictly (SPEC store, section 1.3).

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, data::Type, encode};

use super::{DecodeError, FieldError, Kind};

/// The format version of a record's body (SPEC store, section 1.3).
pub const FORMAT_VERSION: u8 = 1;

/// How deep a field of a later version may nest before this version gives up on it.
const MAX_DEPTH: u8 = 8;

/// Fields that a later version wrote and this one does not know, kept so that a change made here does not
/// lose them: whole pairs of key and value, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    count: u64,
    pairs: Box<[u8]>,
}

impl Unknown {
    /// Bytes of the pairs.
    pub(crate) const fn len_bytes(&self) -> usize {
        self.pairs.len()
    }
}

pub(crate) type Fields<'e> = Encoder<&'e mut Vec<u8>>;
pub(crate) type Written = Result<(), encode::Error<Infallible>>;

/// Appends version and map of `known` fields, which `write` writes with their keys ascending, then `unknown`.
#[expect(
    clippy::expect_used,
    reason = "a vector never refuses bytes, and no field has an encoder that fails"
)]
pub(crate) fn write_body(
    out: &mut Vec<u8>,
    known: u64,
    unknown: &Unknown,
    write: impl FnOnce(&mut Fields<'_>) -> Written,
) {
    out.push(FORMAT_VERSION);
    let mut fields = Encoder::new(&mut *out);
    let written = fields.map(known.saturating_add(unknown.count)).map(drop).and_then(|()| write(&mut fields));
    written.expect("encoding into a vector");
    out.extend_from_slice(&unknown.pairs);
}

/// The fields of one body, not yet parsed.
pub(crate) struct BodyReader<'b> {
    kind: Kind,
    fields: Vec<(u64, &'b [u8])>,
    unknown: Unknown,
}

impl<'b> BodyReader<'b> {
    /// Splits `body` into fields. Keys from `first_unknown` on belong to later versions.
    pub(crate) fn new(kind: Kind, body: &'b [u8], first_unknown: u64) -> Result<Self, DecodeError> {
        let Some((&version, map)) = body.split_first() else {
            return Err(DecodeError::Truncated { offset: 0 });
        };
        if version != FORMAT_VERSION {
            return Err(DecodeError::Version { found: version, known: FORMAT_VERSION });
        }
        let mut decoder = Decoder::new(map);
        let start = DecodeError::Cbor { kind, offset: 0 };
        let Some(count) = decoder.map().map_err(|_| start)? else {
            return Err(DecodeError::Indefinite { kind, offset: 0 });
        };
        let mut reader = Self { kind, fields: Vec::new(), unknown: Unknown::default() };
        let mut unknown_from = None;
        let mut last = None;
        for _ in 0..count {
            let at = decoder.position();
            let key = decoder.u64().map_err(|_| DecodeError::Cbor { kind, offset: at })?;
            if last.is_some_and(|last| key <= last) {
                return Err(DecodeError::Order { kind, key });
            }
            last = Some(key);
            let from = decoder.position();
            if from.saturating_sub(at) != shortest(key) {
                return Err(DecodeError::NotCanonical { kind });
            }
            walk(kind, &mut decoder, MAX_DEPTH)?;
            if key < first_unknown {
                let value = map.get(from..decoder.position()).unwrap_or_default();
                reader.fields.push((key, value));
            } else {
                unknown_from = unknown_from.or(Some(at));
                reader.unknown.count = reader.unknown.count.saturating_add(1);
            }
        }
        let end = decoder.position();
        if end != map.len() {
            return Err(DecodeError::Trailing { kind, count: map.len().saturating_sub(end) });
        }
        if let Some(from) = unknown_from {
            reader.unknown.pairs = map.get(from..).unwrap_or_default().into();
        }
        Ok(reader)
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.fields.iter().map(|(key, _)| *key).collect()
    }

    pub(crate) fn into_unknown(self) -> Unknown {
        self.unknown
    }

    /// An optional field.
    pub(crate) fn optional<T>(
        &self,
        key: u64,
        field: &'static str,
        parse: impl FnOnce(&mut Decoder<'b>) -> Result<T, Refused>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(&(_, value)) = self.fields.iter().find(|(found, _)| *found == key) else {
            return Ok(None);
        };
        let parsed = parse(&mut Decoder::new(value));
        parsed.map(Some).map_err(|Refused(source)| DecodeError::Field { kind: self.kind, field, source })
    }

    /// A mandatory field.
    pub(crate) fn field<T>(
        &self,
        key: u64,
        field: &'static str,
        parse: impl FnOnce(&mut Decoder<'b>) -> Result<T, Refused>,
    ) -> Result<T, DecodeError> {
        self.optional(key, field, parse)?.ok_or(DecodeError::Missing { kind: self.kind, field })
    }
}

/// A field that does not parse: another CBOR type, or a broken rule.
pub(crate) struct Refused(Option<FieldError>);

impl From<minicbor::decode::Error> for Refused {
    fn from(_: minicbor::decode::Error) -> Self {
        Self(None)
    }
}

impl From<FieldError> for Refused {
    fn from(error: FieldError) -> Self {
        Self(Some(error))
    }
}

/// A byte string of exactly `N` bytes.
pub(crate) fn array<const N: usize>(decoder: &mut Decoder<'_>) -> Result<[u8; N], Refused> {
    decoder.bytes()?.try_into().map_err(|_| Refused(None))
}

/// A number that stands for one of `values`.
pub(crate) fn choice<T: Copy>(
    decoder: &mut Decoder<'_>,
    field: &'static str,
    values: &[T],
) -> Result<T, Refused> {
    let found = usize::from(decoder.u8()?);
    values.get(found).copied().ok_or(Refused(Some(FieldError::OutOfRange { field })))
}

/// Bytes of the one spelling of an unsigned integer. Known keys are also held against what this version
/// writes; the keys of later versions have only this check.
fn shortest(key: u64) -> usize {
    match key {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Steps over one value and refuses what no version may use.
fn walk(kind: Kind, decoder: &mut Decoder<'_>, depth: u8) -> Result<(), DecodeError> {
    let offset = decoder.position();
    let bad = |_| DecodeError::Cbor { kind, offset };
    let too_deep = DecodeError::Cbor { kind, offset };
    let mut inner = 0_u64;
    match decoder.datatype().map_err(bad)? {
        Type::Array => inner = decoder.array().map_err(bad)?.unwrap_or_default(),
        Type::Map => inner = decoder.map().map_err(bad)?.unwrap_or_default().saturating_mul(2),
        Type::Tag => {
            decoder.tag().map_err(bad)?;
            inner = 1;
        }
        Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef => {
            return Err(DecodeError::Indefinite { kind, offset });
        }
        Type::Break | Type::Unknown(_) => return Err(too_deep),
        _ => decoder.skip().map_err(bad)?,
    }
    if inner > 0 {
        let deeper = depth.checked_sub(1).ok_or(too_deep)?;
        for _ in 0..inner {
            walk(kind, decoder, deeper)?;
        }
    }
    Ok(())
}
