//! One value of a bucket: its key and its JSON, made into the cells of a row.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use rusqlite::types::Value as Cell;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Bucket, Form};

/// A value that can be put into a table.
#[derive(Debug)]
pub(super) struct Decoded {
    /// One for each field.
    pub(super) cells: Vec<Cell>,
    /// Fields that are not known.
    pub(super) unknown_fields: u64,
}

/// Reads a value. A reason names fields and never what is in them.
pub(super) fn decode(bucket: &Bucket, key: &str, value: &[u8]) -> Result<Decoded, String> {
    let parts = parts_of(key, bucket.key.len()).ok_or("its key is not one of this bucket")?;
    let Ok(Fields { fields, has_twice }) = serde_json::from_slice(value) else {
        return Err("it is not a JSON object".to_owned());
    };
    if has_twice {
        // Which of them counts depends on who reads it.
        return Err("it has a field twice".to_owned());
    }
    let mut cells = Vec::with_capacity(bucket.fields.len());
    for (name, form) in bucket.fields {
        let part = bucket.key.iter().zip(&parts).find(|(of_key, _)| *of_key == name).map(|(_, part)| *part);
        cells.push(match part {
            Some(part) => named(&fields, name, *form, part)?,
            None => cell(fields.get(*name), name, *form)?,
        });
    }
    let known = |name: &String| bucket.fields.iter().any(|(known, _)| known == name);
    let unknown = fields.keys().filter(|name| !known(name)).count();
    Ok(Decoded { cells, unknown_fields: u64::try_from(unknown).unwrap_or(u64::MAX) })
}

/// An object, and whether a name is there more than once.
struct Fields {
    fields: Map<String, Value>,
    has_twice: bool,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Fields, A::Error> {
        let mut found = Fields { fields: Map::new(), has_twice: false };
        while let Some((name, value)) = from.next_entry::<String, Value>()? {
            found.has_twice |= found.fields.insert(name, value).is_some();
        }
        Ok(found)
    }
}

/// The parts of a key.
fn parts_of(key: &str, count: usize) -> Option<Vec<&str>> {
    let parts: Vec<&str> = key.split('.').collect();
    (parts.len() == count && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

/// A field that is a part of the key: the value may leave it out, and must not contradict.
fn named(fields: &Map<String, Value>, name: &str, form: Form, part: &str) -> Result<Cell, String> {
    let of_key = match form {
        Form::Number => {
            part.parse().ok().filter(|number: &i64| number.to_string() == part).map(Cell::Integer)
        }
        _ => Some(Cell::Text(part.to_owned())),
    };
    let of_key = of_key.ok_or("its key is not one of this bucket")?;
    let is_same = match (cell(fields.get(name), name, form)?, &of_key) {
        (Cell::Null, _) => true,
        // Hexadecimal digits of either case are the same key.
        (Cell::Text(value), Cell::Text(part)) if name == "sign_pub" => value.eq_ignore_ascii_case(part),
        (value, of_key) => value == *of_key,
    };
    if is_same { Ok(of_key) } else { Err(format!("`{name}` is not that of its key")) }
}

fn cell(value: Option<&Value>, name: &str, form: Form) -> Result<Cell, String> {
    let wrong = |value: &Value| {
        let found = match value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let wanted = match form {
            Form::Text => "text",
            Form::Number => "a whole number",
            Form::Object => "an object",
            Form::Bytes => "text in base64",
        };
        format!("`{name}` holds {found}, wanted {wanted}")
    };
    match (value, form) {
        (None | Some(Value::Null), _) => Ok(Cell::Null),
        (Some(Value::String(text)), Form::Text) => Ok(Cell::Text(text.clone())),
        (Some(value @ Value::Number(number)), Form::Number) => {
            number.as_i64().map(Cell::Integer).ok_or_else(|| wrong(value))
        }
        (Some(value @ Value::Object(_)), Form::Object) => Ok(Cell::Text(value.to_string())),
        (Some(Value::String(text)), Form::Bytes) => [BASE64URL_NOPAD, BASE64URL, BASE64, BASE64_NOPAD]
            .iter()
            .find_map(|encoding| encoding.decode(text.as_bytes()).ok())
            .map(Cell::Blob)
            .ok_or_else(|| format!("`{name}` is not base64")),
        (Some(value), _) => Err(wrong(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::BUCKETS;
    use super::*;

    #[test]
    fn a_reason_names_fields_and_never_what_is_in_them() {
        let key = "ab".repeat(32);
        let rooms = &BUCKETS[3];
        let long = format!("room.1.{key}");
        for (bucket, key, value, wanted) in [
            (&BUCKETS[0], key.as_str(), r#"["secret"]"#, "it is not a JSON object"),
            (&BUCKETS[0], key.as_str(), r#"{"handle": "secret""#, "it is not a JSON object"),
            (&BUCKETS[0], key.as_str(), r#"{"sign_pub": "secret"}"#, "`sign_pub` is not that of its key"),
            (&BUCKETS[0], key.as_str(), r#"{"handle": ["secret"]}"#, "`handle` holds a list, wanted text"),
            (&BUCKETS[0], "se.cret", "{}", "its key is not one of this bucket"),
            (&BUCKETS[1], "r", r#"{"key_epoch": 1.5}"#, "`key_epoch` holds a number, wanted a whole number"),
            (rooms, "room.01.secret", "{}", "its key is not one of this bucket"),
            (rooms, "room..secret", "{}", "its key is not one of this bucket"),
            (rooms, long.as_str(), r#"{"key_epoch": 2}"#, "`key_epoch` is not that of its key"),
            (rooms, long.as_str(), r#"{"sealed": "secret!"}"#, "`sealed` is not base64"),
        ] {
            assert_eq!(decode(bucket, key, value.as_bytes()).unwrap_err(), wanted, "{value}");
        }
    }

    #[test]
    fn whatever_a_value_is_it_is_taken_or_refused_and_nothing_breaks() {
        let key = "ab".repeat(32);
        let deep = format!(r#"{{"handle": "h", "new": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let wide = format!(r#"{{"handle": "{}"}}"#, "h".repeat(1 << 20));
        let not_an_object = "it is not a JSON object";
        for (value, wanted) in [
            (&b""[..], not_an_object),
            (b" ", not_an_object),
            (b"null", not_an_object),
            (b"\"secret\"", not_an_object),
            (b"{} {}", not_an_object),
            (b"\xef\xbb\xbf{}", not_an_object),
            (b"{\"handle\": \"\xff\"}", not_an_object),
            (b"{\"\xff\": 1}", not_an_object),
            (b"{\"handle\": \"\\ud800\"}", not_an_object),
            (br#"{"handle": "secret", "handle": "secret"}"#, "it has a field twice"),
            (br#"{"role": "member", "r\u006fle": "admin"}"#, "it has a field twice"),
            (br#"{"unknown": 1, "unknown": 1}"#, "it has a field twice"),
            (br#"{"handle": 1e999}"#, not_an_object),
            (br#"{"handle": 7}"#, "`handle` holds a number, wanted text"),
            (deep.as_bytes(), not_an_object),
        ] {
            assert_eq!(decode(&BUCKETS[0], &key, value).unwrap_err(), wanted, "{:?}", value.get(..40));
        }
        for number in ["1e3", "9223372036854775808", "-0.0", "18446744073709551616", "true", "\"1\"", "[1]"] {
            let value = format!(r#"{{"key_epoch": {number}}}"#);
            let refused = decode(&BUCKETS[1], "r", value.as_bytes()).unwrap_err();
            assert!(refused.starts_with("`key_epoch` holds "), "{number}: {refused}");
        }
        // Whether these are records is asked of each later.
        for value in [r#"{"handle": ""}"#, r#"{"handle": "\u0000"}"#, wide.as_str(), r#"{"handle": null}"#] {
            decode(&BUCKETS[0], &key, value.as_bytes()).unwrap();
        }
        let unknown = br#"{"new": {"handle": 1, "handle": 2}, "big": 123456789012345678901234567890}"#;
        assert_eq!(decode(&BUCKETS[0], &key, unknown).unwrap().unknown_fields, 2);
        for key in ["", ".", "a.b", "..", "a."] {
            assert_eq!(decode(&BUCKETS[0], key, b"{}").unwrap_err(), "its key is not one of this bucket");
        }
        for key in ["r.+1.e", "r.1e0.e", "r.-0.e", "r.9223372036854775808.e", "r. 1.e"] {
            assert_eq!(
                decode(&BUCKETS[3], key, b"{}").unwrap_err(),
                "its key is not one of this bucket",
                "{key}"
            );
        }
    }

    #[test]
    fn what_is_in_the_key_may_be_left_out_and_unknown_fields_are_counted() {
        let key = "AB".repeat(32);
        let bare = decode(&BUCKETS[0], &key, br#"{"handle": "h", "new": 1, "newer": {}}"#).unwrap();
        assert_eq!(bare.unknown_fields, 2);
        assert_eq!(bare.cells[..2], [Cell::Text(key.clone()), Cell::Text("h".into())]);
        assert!(bare.cells[2..].iter().all(|cell| *cell == Cell::Null));
        let value = format!(r#"{{"sign_pub": "{}"}}"#, key.to_lowercase());
        decode(&BUCKETS[0], &key, value.as_bytes()).unwrap();
        for sealed in ["+/8", "+/8=", "-_8", "-_8="] {
            let value = format!(r#"{{"sealed": "{sealed}"}}"#);
            let decoded = decode(&BUCKETS[3], "r.7.e", value.as_bytes()).unwrap();
            assert_eq!(decoded.cells[1], Cell::Integer(7));
            assert_eq!(decoded.cells[3], Cell::Blob(vec![0xfb, 0xff]));
        }
    }
}
