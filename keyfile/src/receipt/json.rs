//! JSON in the few kinds that a receipt has, and its one canonical form (RFC 8785).
//!
//! Objects, arrays, strings, booleans, null and integers below 2^53: for these the canonical form is sorted names,
//! shortest escapes and no space. Everything else is refused, and so is a name that stands twice.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::DecodeError;

/// Most of an integer: every reader has these exactly (RFC 8785, section 3.2.2.3; RFC 7493, section 2.2).
pub(super) const MAX_INTEGER: u64 = (1 << 53) - 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Json {
    /// Reads one value, and nothing after it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        serde_json::from_slice(bytes).map_err(|_| DecodeError::Field("JSON"))
    }

    /// An object of these fields.
    pub(super) fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A list of texts.
    pub(super) fn texts(list: impl IntoIterator<Item = String>) -> Self {
        Self::List(list.into_iter().map(Self::Text).collect())
    }

    /// The canonical form. RFC 8785 sorts names by UTF-16 units: all names of a receipt are ASCII, where that is
    /// the order of bytes.
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Text(text) => quote(text, out),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    // Text always has a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

/// Floats and negative numbers have no `visit_` here, so they are refused.
impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, array, string, boolean, null or integer from 0 to 2^53 - 1")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        if number > MAX_INTEGER {
            Err(E::custom("an integer over 2^53 - 1"))
        } else {
            Ok(Json::Number(number))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = fields.next_entry::<String, Json>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// The fields of an object, taken out one by one: what is left over is refused.
pub(super) struct Fields(BTreeMap<String, Json>);

impl Fields {
    pub(super) fn of(json: Json, field: &'static str) -> Result<Self, DecodeError> {
        if let Json::Object(fields) = json { Ok(Self(fields)) } else { Err(DecodeError::Field(field)) }
    }

    fn take(&mut self, name: &'static str) -> Result<Json, DecodeError> {
        self.0.remove(name).ok_or(DecodeError::Field(name))
    }

    pub(super) fn object(&mut self, name: &'static str) -> Result<Self, DecodeError> {
        Self::of(self.take(name)?, name)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<String, DecodeError> {
        if let Json::Text(text) = self.take(name)? { Ok(text) } else { Err(DecodeError::Field(name)) }
    }

    pub(super) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, DecodeError> {
        match self.take(name)? {
            Json::Null => Ok(None),
            Json::Text(text) => Ok(Some(text)),
            _ => Err(DecodeError::Field(name)),
        }
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<u64, DecodeError> {
        if let Json::Number(number) = self.take(name)? { Ok(number) } else { Err(DecodeError::Field(name)) }
    }

    pub(super) fn bool(&mut self, name: &'static str) -> Result<bool, DecodeError> {
        if let Json::Bool(value) = self.take(name)? { Ok(value) } else { Err(DecodeError::Field(name)) }
    }

    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<Json>, DecodeError> {
        if let Json::List(items) = self.take(name)? { Ok(items) } else { Err(DecodeError::Field(name)) }
    }

    /// Nothing else may be there.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::NotCanonical) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Json::parse(text.as_bytes()).ok().map(|json| json.canonical())
    }

    #[test]
    fn space_and_order_do_not_count() {
        let text = " {\"b\" : [ 1 , true,null ],\n\"a\": {\"d\": \"x\", \"c\": 0}}\n";
        assert_eq!(canonical(text).unwrap(), r#"{"a":{"c":0,"d":"x"},"b":[1,true,null]}"#);
    }

    #[test]
    fn text_has_the_escapes_of_rfc_8785() {
        // The control characters, quotes and solidus of RFC 8785, section 3.2.2.2.
        let text = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/\u0008\t\u000c\r\u007f""#;
        let wanted = "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\\b\\t\\f\\r\u{7f}\"";
        assert_eq!(canonical(text).unwrap(), wanted);
    }

    #[test]
    fn what_has_no_exact_form_is_refused() {
        assert_eq!(canonical("9007199254740991").unwrap(), "9007199254740991");
        for bad in [
            "9007199254740992",
            "18446744073709551616",
            "-1",
            "-0",
            "1.0",
            "1e3",
            "01",
            "NaN",
            "",
            "1 2",
            "[1,]",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{1:2}",
            "\"\\ud800\"",
            "\"\n\"",
            "\u{feff}1",
        ] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
        assert_eq!(canonical(&"[".repeat(100_000)), None);
        assert!(Json::parse(b"\"\xff\"").is_err());
    }
}
