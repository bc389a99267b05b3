//! The authentication field and trailer of a packet (RFC 2328 §D.4, §D.5, RFC 5709).
//!
//! The core has no view here of which keys there are or are in force: this is the computation
//! alone. HMAC is used as RFC 2104 defines it, which is what the erratum 3585 of RFC 5709 says
//! and what its implementations do: a key longer than the hash's block is hashed first.

use std::fmt;

use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::header::{Envelope, clear_checksum, set_authentication, set_checksum};

/// AuType 0: nothing but the checksum.
pub(crate) const NULL: u16 = 0;
/// AuType 1: a password in the clear.
pub(crate) const SIMPLE: u16 = 1;
/// AuType 2: a digest over packet and secret.
pub(crate) const CRYPTOGRAPHIC: u16 = 2;

/// The longest simple password, and the length that shorter ones are padded to.
pub const MAX_PASSWORD: usize = 8;

/// The longest secret of keyed MD5, and the length that shorter ones are padded to.
pub const MAX_MD5_SECRET: usize = 16;

/// The constant that stands in place of the digest while that is computed (RFC 5709 §3.3).
const APAD: [u8; 4] = [0x87, 0x8f, 0xe1, 0xf3];

/// The largest digest, that of SHA-512, in units of [`APAD`].
const MAX_APADS: usize = 16;

/// An algorithm of cryptographic authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Keyed MD5 (RFC 2328 §D.3), the only one of FRR before 9.1.
    Md5,
    /// HMAC-SHA-1 (RFC 5709).
    HmacSha1,
    /// HMAC-SHA-256 (RFC 5709).
    HmacSha256,
    /// HMAC-SHA-384 (RFC 5709).
    HmacSha384,
    /// HMAC-SHA-512 (RFC 5709).
    HmacSha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [
        Self::Md5,
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
    ];

    /// The name used in files, logs and views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::HmacSha1 => "hmac-sha-1",
            Self::HmacSha256 => "hmac-sha-256",
            Self::HmacSha384 => "hmac-sha-384",
            Self::HmacSha512 => "hmac-sha-512",
        }
    }

    /// The length of its digest in bytes.
    pub fn digest_len(self) -> u8 {
        match self {
            Self::Md5 => 16,
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// The digest of a packet whose header is complete.
    fn digest(self, secret: &[u8], packet: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => keyed_md5(secret, packet),
            Self::HmacSha1 => self.hmac::<Hmac<Sha1>>(secret, packet),
            Self::HmacSha256 => self.hmac::<Hmac<Sha256>>(secret, packet),
            Self::HmacSha384 => self.hmac::<Hmac<Sha384>>(secret, packet),
            Self::HmacSha512 => self.hmac::<Hmac<Sha512>>(secret, packet),
        }
    }

    fn hmac<M: Mac + KeyInit>(self, secret: &[u8], packet: &[u8]) -> Vec<u8> {
        let mut mac =
            <M as KeyInit>::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(packet);
        let apad = [APAD; MAX_APADS];
        let length = usize::from(self.digest_len());
        mac.update(apad.as_flattened().get(..length).unwrap_or_default());
        mac.finalize().into_bytes().to_vec()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// MD5 over the packet and the secret, which zeros fill up to 16 bytes (RFC 2328 §D.4.3).
fn keyed_md5(secret: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut padded = [0; MAX_MD5_SECRET];
    for (to, from) in padded.iter_mut().zip(secret) {
        *to = *from;
    }
    let mut hash = Md5::new();
    hash.update(packet);
    hash.update(padded);
    hash.finalize().to_vec()
}

/// What AuType 2 makes of the 64-bit authentication field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CryptographicField {
    pub(crate) key_id: u8,
    /// The digest's length.
    pub(crate) length: u8,
    pub(crate) sequence: u32,
}

impl CryptographicField {
    pub(crate) fn decode(data: [u8; 8]) -> Self {
        let [_, _, key_id, length, a, b, c, d] = data;
        Self {
            key_id,
            length,
            sequence: u32::from_be_bytes([a, b, c, d]),
        }
    }

    fn encode(self) -> [u8; 8] {
        let [a, b, c, d] = self.sequence.to_be_bytes();
        [0, 0, self.key_id, self.length, a, b, c, d]
    }
}

/// A password as the field has it.
fn padded_password(password: &[u8]) -> [u8; MAX_PASSWORD] {
    let mut padded = [0; MAX_PASSWORD];
    for (to, from) in padded.iter_mut().zip(password) {
        *to = *from;
    }
    padded
}

/// Makes an encoded packet one with a simple password (§D.4.2).
pub(crate) fn add_password(password: &[u8], packet: &mut [u8]) {
    set_authentication(packet, SIMPLE, padded_password(password));
    set_checksum(packet);
}

/// Makes an encoded packet a cryptographically authenticated one (§D.4.3).
pub(crate) fn add_digest(
    algorithm: Algorithm,
    secret: &[u8],
    key_id: u8,
    sequence: u32,
    packet: &mut Vec<u8>,
) {
    let field = CryptographicField {
        key_id,
        length: algorithm.digest_len(),
        sequence,
    };
    set_authentication(packet, CRYPTOGRAPHIC, field.encode());
    clear_checksum(packet);
    let digest = algorithm.digest(secret, packet);
    packet.extend_from_slice(&digest);
}

/// Whether a packet has this password, found out in constant time.
pub(crate) fn has_password(password: &[u8], envelope: &Envelope<'_>) -> bool {
    padded_password(password)
        .ct_eq(&envelope.auth_data)
        .to_bool()
}

/// Whether the digest behind a packet is that of this secret, found out in constant time.
pub(crate) fn has_digest(algorithm: Algorithm, secret: &[u8], envelope: &Envelope<'_>) -> bool {
    let length = usize::from(algorithm.digest_len());
    envelope.trailer.get(..length).is_some_and(|found| {
        let expected = algorithm.digest(secret, envelope.packet);
        expected.as_slice().ct_eq(found).to_bool()
    })
}

#[cfg(test)]
mod tests;
