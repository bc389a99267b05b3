//! LSAs and parts of packets as plain text: the bytes of the wire in hexadecimal. The format is
//! OSPF's own, so that it is the same in every version of this program.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::dbdesc::DbDesc;
use super::lsa::{Lsa, LsaHeader};
use super::wire::Reader;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes that are hexadecimal text where they are serialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| {
            DIGITS
                .get(usize::from(nibble))
                .copied()
                .map_or('0', char::from)
        };
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 0x0f));
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Hex;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pairs of hexadecimal digits")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Hex, E> {
                parse(text.as_bytes()).map(Hex).ok_or_else(|| {
                    E::custom(format_args!(
                        "expected pairs of hexadecimal digits, found {text:?}"
                    ))
                })
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

fn parse(text: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|&[high, low]| Some(value(high)? << 4 | value(low)?));
    rest.is_empty().then(|| bytes.collect())?
}

impl Serialize for Lsa {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.wire_len());
        self.encode(&mut bytes);
        Hex(bytes).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lsa {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(deserializer)?;
        Self::decode(&mut Reader::new(&bytes)).map_err(D::Error::custom)
    }
}

impl Serialize for LsaHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(self.encode().to_vec()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LsaHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(deserializer)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| {
            D::Error::custom(format_args!(
                "expected an LSA header, found {} bytes",
                bytes.len()
            ))
        })?;
        Ok(Self::decode(bytes))
    }
}

impl Serialize for DbDesc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Hex(bytes).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DbDesc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_and_other_text_is_refused() {
        let all = Hex((0..=u8::MAX).collect());
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Hex>(&text).unwrap(), all);
        for bad in ["\"0\"", "\"0g\"", "\"0A\"", "\"é\""] {
            let error = serde_json::from_str::<Hex>(bad).unwrap_err().to_string();
            assert!(
                error.contains("pairs of hexadecimal digits"),
                "{bad}: {error}"
            );
        }
        let error = serde_json::from_str::<Lsa>("\"00\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("LSA header"), "{error}");
    }
}
