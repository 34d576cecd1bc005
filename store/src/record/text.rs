//! Names that people and the bus use.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;

use super::{FieldError, redact};

/// Most bytes of a handle.
pub const HANDLE_MAX_BYTES: usize = 128;
/// Most bytes of a room's subject.
pub const SUBJECT_MAX_BYTES: usize = 256;
/// Most bytes of a room id and of a channel.
pub const TOKEN_MAX_BYTES: usize = 64;

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = FieldError;

            fn from_str(text: &str) -> Result<Self, FieldError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                redact::marker(f, stringify!($name), self.0.as_bytes())
            }
        }
    };
}

fn in_length(field: &'static str, text: &str, limit: usize) -> Result<(), FieldError> {
    if text.is_empty() || text.len() > limit {
        return Err(FieldError::Length { field, found: text.len(), limit });
    }
    Ok(())
}

fn token(field: &'static str, text: &str) -> Result<Box<str>, FieldError> {
    in_length(field, text, TOKEN_MAX_BYTES)?;
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        Ok(text.into())
    } else {
        Err(FieldError::Form { field, wanted: "letters, digits, `_` and `-`" })
    }
}

/// A user's name for people: 1 to 128 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(Box<str>);
text_newtype!(Handle);

impl Handle {
    /// Parses a handle. The text is kept as it is: neither trimmed nor normalised.
    ///
    /// # Errors
    /// [`FieldError::Length`], [`FieldError::Form`].
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        in_length("handle", text, HANDLE_MAX_BYTES)?;
        if text.chars().any(|c| c.is_control() || is_bidi_or_line_break(c)) {
            return Err(FieldError::Form { field: "handle", wanted: "no control characters" });
        }
        Ok(Self(text.into()))
    }
}

/// Line separators and the marks that turn the direction of writing: with them one handle can look like
/// another in a list, or like two lines of a log.
fn is_bidi_or_line_break(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A room's name for people: a NATS subject of 1 to 256 bytes, without wildcard, white space, control
/// characters or empty tokens. It lives in the record only and never reaches NATS.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Box<str>);
text_newtype!(Subject);

impl Subject {
    /// Parses a subject.
    ///
    /// # Errors
    /// [`FieldError::Length`], [`FieldError::Form`].
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let field = "subject";
        in_length(field, text, SUBJECT_MAX_BYTES)?;
        if text.split('.').any(str::is_empty) {
            return Err(FieldError::Form { field, wanted: "no empty token" });
        }
        if text.contains(['*', '>']) {
            return Err(FieldError::Form { field, wanted: "no wildcard" });
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || is_bidi_or_line_break(c)) {
            return Err(FieldError::Form { field, wanted: "no white space or control characters" });
        }
        Ok(Self(text.into()))
    }
}

/// The identity of a room: 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(Box<str>);
text_newtype!(RoomId);

impl RoomId {
    /// Parses a room id.
    ///
    /// # Errors
    /// [`FieldError::Length`], [`FieldError::Form`].
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        token("room_id", text).map(Self)
    }

    /// Draws a new room id of 128 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(random_token())
    }
}

/// A room's name on the wire: 1 to 64 of `[A-Za-z0-9_-]`, drawn at random so that it says nothing.
///
/// Whoever may use a channel reads the room's traffic. So a channel is drawn by the node that creates the
/// room, and is never taken from a request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Box<str>);
text_newtype!(Channel);

impl Channel {
    /// Parses a channel.
    ///
    /// # Errors
    /// [`FieldError::Length`], [`FieldError::Form`].
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        token("channel", text).map(Self)
    }

    /// Draws a new channel of 128 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(random_token())
    }

    /// The NATS subject of the room: `room.<channel>`.
    #[must_use]
    pub fn wire_subject(&self) -> String {
        format!("room.{}", self.0)
    }
}

fn random_token() -> Box<str> {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 16]>()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_has_1_to_128_bytes_and_no_control_characters() {
        assert!(Handle::parse("Zo\u{eb}, \u{5f20}").is_ok());
        assert!(Handle::parse(&"a".repeat(128)).is_ok());
        for text in ["", &"a".repeat(129), "a\0b", "a\nb", "a\u{7f}", "a\u{85}", "a\u{202e}b", "a\u{2028}b"] {
            assert!(Handle::parse(text).is_err(), "{text:?}");
        }
        assert!(Handle::parse(&"\u{eb}".repeat(65)).is_err(), "the limit counts bytes");
    }

    #[test]
    fn a_subject_is_a_nats_subject_that_names_one_thing() {
        for text in ["a", "ops.alerts", "a.b-c_d.e$f", &"a".repeat(256), "caf\u{e9}.x"] {
            assert!(Subject::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "*",
            "a.*",
            ">",
            "a.>",
            "a*b",
            "a>b",
            "a b",
            "a\tb",
            "a\r\nb",
            "a\u{a0}b",
            "a\u{3000}b",
            "a\0b",
            &"a".repeat(257),
        ] {
            assert!(Subject::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn room_ids_and_channels_are_short_tokens() {
        for text in ["a", "A-z_0", &"a".repeat(64)] {
            assert!(RoomId::parse(text).is_ok() && Channel::parse(text).is_ok(), "{text}");
        }
        for text in ["", "a.b", "a b", "\u{e9}", "a/b", "a\0", &"a".repeat(65)] {
            assert!(RoomId::parse(text).is_err() && Channel::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn random_channels_parse_and_differ() {
        let (one, two) = (Channel::random(), Channel::random());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 22);
        assert_eq!(Channel::parse(one.as_str()).unwrap(), one);
        assert_eq!(one.wire_subject(), format!("room.{one}"));
    }
}
