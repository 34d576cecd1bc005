//! Public keys, and what is named after a hash.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use unibus_keyfile::digest::sha256;

use super::{FieldError, redact};

/// Points of small order on the curve of Ed25519, as `y` with the sign bit cleared. A signature under such
/// a key can be valid for many messages. The last two are second encodings of `y = 0` and `y = 1`. Each is its 32
/// bytes as two numbers, read from the left.
const SMALL_ORDER_ED25519: [(u128, u128); 7] = [
    (0x00000000000000000000000000000000, 0x00000000000000000000000000000000),
    (0x01000000000000000000000000000000, 0x00000000000000000000000000000000),
    (0x26e8958fc2b227b045c3f489f2ef98f0, 0xd5dfac05d3c63339b13802886d53fc05),
    (0xc7176a703d4dd84fba3c0b760d10670f, 0x2a2053fa2c39ccc64ec7fd7792ac037a),
    (0xecffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
    (0xedffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
    (0xeeffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
];

/// The `u` of small order on the curve of X25519 and of its twist, with the top bit cleared as RFC 7748
/// does on use: whatever is sealed to one of them is sealed to a secret that everybody knows.
const SMALL_ORDER_X25519: [(u128, u128); 7] = [
    (0x00000000000000000000000000000000, 0x00000000000000000000000000000000),
    (0x01000000000000000000000000000000, 0x00000000000000000000000000000000),
    (0x5f9c95bca3508c24b1d0b1559c83ef5b, 0x04445cc4581c8e86d8224eddd09f1157),
    (0xe0eb7a7c3b41b8ae1656e3faf19fc46a, 0xda098deb9c32b1fd866205165f49b800),
    (0xecffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
    (0xedffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
    (0xeeffffffffffffffffffffffffffffff, 0xffffffffffffffffffffffffffffff7f),
];

fn is_small_order(key: &[u8; 32], table: &[(u128, u128); 7]) -> bool {
    table.contains(&halves(key, 0x7f))
}

/// The key as two numbers, with `mask` laid over its last byte.
fn halves(key: &[u8; 32], mask: u8) -> (u128, u128) {
    let fold = |half: &[u8]| half.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    let (first, last) = key.split_at(16);
    (fold(first), fold(last) & (u128::MAX << 8 | u128::from(mask)))
}

fn from_hex(field: &'static str, text: &str) -> Result<[u8; 32], FieldError> {
    let bad = || FieldError::Form { field, wanted: "64 hexadecimal digits" };
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| bad())?;
    bytes.try_into().map_err(|_| bad())
}

macro_rules! key_of_32_bytes {
    ($name:ident, $field:literal, $table:ident) => {
        impl $name {
            /// Takes the 32 bytes of the key.
            ///
            /// # Errors
            /// [`FieldError::WeakKey`] for all zeros and for every other point of small order.
            pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, FieldError> {
                if is_small_order(&bytes, &$table) {
                    return Err(FieldError::WeakKey { field: $field });
                }
                Ok(Self(bytes))
            }

            /// The 32 bytes of the key.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = FieldError;

            /// Parses 64 hexadecimal digits of either case.
            fn from_str(text: &str) -> Result<Self, FieldError> {
                Self::from_bytes(from_hex($field, text)?)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                redact::marker(f, stringify!($name), &self.0)
            }
        }
    };
}

/// A user's Ed25519 public key; also the identity of a [`User`](super::User). Text: 64 hex, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignPub([u8; 32]);
key_of_32_bytes!(SignPub, "sign_pub", SMALL_ORDER_ED25519);

/// A member's X25519 public key, to which room keys are sealed. Text: 64 hex, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KexPub([u8; 32]);
key_of_32_bytes!(KexPub, "kex_pub", SMALL_ORDER_X25519);

/// An endpoint id: SHA-256 of the 32 bytes of a signing key. Text: base64url without padding, 43 characters.
///
/// It sorts by its bytes, which is not the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint([u8; 32]);

impl Endpoint {
    /// The endpoint of a signing key.
    #[must_use]
    pub fn of(key: &SignPub) -> Self {
        Self(sha256(&[key.as_bytes()]))
    }

    /// Takes the 32 bytes of the hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::Form { field: "endpoint", wanted: "43 characters of base64url" };
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| bad())?;
        bytes.try_into().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "Endpoint", &self.0)
    }
}

/// SHA-256 of a blob's content; the identity of a [`Blob`](super::Blob). Text: 64 hex, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(sha256(&[content]))
    }

    /// Takes the 32 bytes of the hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for BlobHash {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        from_hex("sha256", text).map(Self)
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "BlobHash", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of((first, last): (u128, u128)) -> [u8; 32] {
        [first.to_be_bytes(), last.to_be_bytes()].concat().try_into().unwrap()
    }

    #[test]
    fn the_points_are_those_of_the_literature() {
        // As they are published, byte by byte: one of order 8 on either curve.
        let hex = |point| HEXLOWER.encode(&bytes_of(point));
        assert_eq!(
            hex(SMALL_ORDER_ED25519[2]),
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        );
        assert_eq!(
            hex(SMALL_ORDER_X25519[3]),
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
        );
        let neighbours: [SignPub; 2] =
            ["02", "03"].map(|byte| format!("{byte}{}", "00".repeat(31)).parse().unwrap());
        assert_ne!(neighbours[0], neighbours[1], "a key beside a weak one is no weak one");
    }

    #[test]
    fn each_point_of_small_order_is_refused_with_either_top_bit() {
        for (ed, x) in SMALL_ORDER_ED25519.iter().zip(SMALL_ORDER_X25519) {
            for top in [0, 0x80] {
                let mut ed = bytes_of(*ed);
                ed[31] |= top;
                assert_eq!(SignPub::from_bytes(ed), Err(FieldError::WeakKey { field: "sign_pub" }));
                let mut x = bytes_of(x);
                x[31] |= top;
                assert_eq!(KexPub::from_bytes(x), Err(FieldError::WeakKey { field: "kex_pub" }));
            }
        }
    }

    #[test]
    fn either_case_of_hex_is_the_same_key() {
        let lower: SignPub = "ab".repeat(32).parse().unwrap();
        assert_eq!("AB".repeat(32).parse::<SignPub>().unwrap(), lower);
        assert_eq!(lower.to_string(), "ab".repeat(32));
        assert!("ab".repeat(31).parse::<SignPub>().is_err());
        assert!(format!("{} ", "ab".repeat(32)).parse::<SignPub>().is_err());
    }

    #[test]
    fn an_endpoint_is_the_hash_of_the_key_bytes_in_base64url() {
        // Made with Python: base64.urlsafe_b64encode(hashlib.sha256(bytes([0xab]) * 32).digest())
        let key: SignPub = "ab".repeat(32).parse().unwrap();
        let endpoint = Endpoint::of(&key);
        assert_eq!(endpoint.to_string(), "mi2y4j8VBM0FZgZVOsBJxecY6PnOkjOHbfGnoYIa-IU");
        assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        assert!("mi2y4j8VBM0FZgZVOsBJxecY6PnOkjOHbfGnoYIa-IU=".parse::<Endpoint>().is_err());
        assert!("AAAA".parse::<Endpoint>().is_err());
    }

    #[test]
    fn the_last_character_of_an_endpoint_has_no_spare_bits() {
        // 43 characters carry 258 bits: the two left over must be zero, or one endpoint has four texts.
        let text = "A".repeat(43);
        assert!(text.parse::<Endpoint>().is_ok());
        assert!(format!("{}B", &text[..42]).parse::<Endpoint>().is_err());
    }
}
