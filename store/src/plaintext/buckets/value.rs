//! One value of a bucket: its key and its JSON, made into the cells of a row.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use rusqlite::types::Value as Cell;
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
    let Ok(Value::Object(fields)) = serde_json::from_slice(value) else {
        return Err("it is not a JSON object".to_owned());
    };
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
