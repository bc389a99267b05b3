//! Random secrets and what is stored in their place.

use sha2::{Digest, Sha256};

/// Random bytes of the kernel.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux has had getrandom(2) since 3.17");
    bytes
}

/// A text of `length` characters, each equally likely one of `alphabet`.
pub(super) fn random_text(alphabet: &[u8], length: usize) -> String {
    // Bytes from here on would make the alphabet's first characters likelier.
    let limit = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let fresh = random::<64>().into_iter().map(usize::from);
        let kept = fresh.filter(|byte| *byte < limit);
        let characters = kept.map(|byte| char::from(alphabet[byte % alphabet.len()]));
        text.extend(characters.take(length - text.len()));
    }
    text
}

/// SHA-256 in hexadecimal: enough for secrets that are random themselves.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Whether two texts are the same, in a time that does not depend on where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sha_256_of_the_parts_in_order() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            sha256_hex(&[b"a", b"bc"]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn random_texts_keep_to_their_alphabet_and_differ() {
        let text = random_text(b"abc", 300);
        assert_eq!(text.len(), 300);
        assert!(text.bytes().all(|byte| b"abc".contains(&byte)), "{text}");
        assert_ne!(text, random_text(b"abc", 300));
    }

    #[test]
    fn sameness_looks_at_the_whole_text() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abd", "xbc", "abcd"] {
            assert!(!same("abc", other), "{other:?}");
        }
    }
}
