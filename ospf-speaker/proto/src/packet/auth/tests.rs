use proptest::prelude::*;

use super::*;
use crate::packet::{Body, Packet};

/// Hellos of 10.77.0.1 as they were captured, with the password that was configured.
const CAPTURED: [(&str, &[u8], Algorithm, u8, &str); 6] = [
    (
        "FRR 8.4.4, md5",
        b"correct",
        Algorithm::Md5,
        3,
        "0201002c0a4d00010000000000000002000003106b031c25ffffff0000010201\
         000000040000000000000000585ef2afc2a2de98a24eb17e75fba111",
    ),
    (
        "BIRD 2.0.12, keyed md5",
        b"correct horse",
        Algorithm::Md5,
        71,
        "0201002c0a4d00010000000000000002000047106b031c0effffff0000010201\
         000000040000000000000000a844d3953d9d7dc6164bee99c0856bcf",
    ),
    (
        "BIRD 2.0.12, hmac sha1",
        b"correct horse",
        Algorithm::HmacSha1,
        72,
        "0201002c0a4d00010000000000000002000048146b031c12ffffff0000010201\
         0000000400000000000000007145a679a7b87486ddf55497ed7f6b00b2527c98",
    ),
    (
        "BIRD 2.0.12, hmac sha256",
        b"correct horse",
        Algorithm::HmacSha256,
        73,
        "0201002c0a4d00010000000000000002000049206b031c15ffffff0000010201\
         00000004000000000000000078f742e3f4429b299a31c1232168519230a672a3\
         67731ebfcdb6b10f890e0a5e",
    ),
    (
        "BIRD 2.0.12, hmac sha384",
        b"correct horse",
        Algorithm::HmacSha384,
        74,
        "0201002c0a4d0001000000000000000200004a306b031c19ffffff0000010201\
         0000000400000000000000003c5060994190f756c682b9f4bfa62e5df4e9441b\
         48e7f78b49f08ae99cf0d12d3bec30a8eb77b650f521556a8eb6f4eb",
    ),
    (
        "BIRD 2.0.12, hmac sha512",
        b"correct horse",
        Algorithm::HmacSha512,
        75,
        "0201002c0a4d0001000000000000000200004b406b031c1cffffff0000010201\
         000000040000000000000000865a6a7db7574d14904662672b6d05c148505e7d\
         ed62e4ec3c9ae409e6f0aecc2366dac522b987edb5f10889e984c9663bd46bbb\
         44b9bc4c9c3c674bd09964eb",
    ),
];

/// The same Hello of BIRD 2.0.12 with the simple password "eightbyt".
const SIMPLE_HELLO: &str = "0201002c0a4d000100000000f27c00016569676874627974ffffff0000010201\
                            000000040000000000000000";

/// The header and body that the digests below are over: key id 5, sequence number 1.
const HELLO: &str = "0201002c0a4d000100000000000000020000050000000001ffffff0000010201\
                     000000040000000000000000";

/// Computed with Python's hmac: HMAC(key, HELLO with its digest length ‖ Apad), for keys of a
/// byte, of 100 (longer than SHA-1's and SHA-256's block) and of 200 (longer than any block).
const COMPUTED: [(Algorithm, [&str; 3]); 4] = [
    (
        Algorithm::HmacSha1,
        [
            "ed214722ab4fe825a42bdd6ee4991dbd1aa40c6f",
            "c259668b906fdb77b048187d99d0e6160b9f44b9",
            "81da2e040b2faf3da3039bfa5c0825d3157ff5bc",
        ],
    ),
    (
        Algorithm::HmacSha256,
        [
            "874532946419f0aa1d69ddcc180a8399f8d3e6ff4fa5c8ee18c7937858d56f77",
            "417d1fa364a4cf81abb8b9759008b9399f9ab893bf1271f912c31ab244f9ee88",
            "02ab2f5bb0ccff0272f955d9e777cc446c7aff50d37ce86243d400999054a20c",
        ],
    ),
    (
        Algorithm::HmacSha384,
        [
            "6525efa4d016d30908e2b38a4b2c4e882f033d6c8b93c4d29991cbae0d7a95cf\
             1722959d940bf8ed91447f739137eae3",
            "1b46906b211fddb81cfe31c16fd921463fd05903aa75b9d9dc7ee72efd1f6eb4\
             5ea56ee77b0d2d806079588d8e297a3e",
            "d78149dd213dfc4266d26e466f6da9744ee43e9c93b92062a27a4a66d28db835\
             9eba7d135976ceed1550cc176e55656e",
        ],
    ),
    (
        Algorithm::HmacSha512,
        [
            "95db069e655ef2ca47a0c51064eb03118d575416593730452248bba2fb3ce96c\
             343b3a080cd71d2a419843ebbab9c15227ef38c4f860fc9b53302e1cf1d3eb66",
            "ef14cc008cc30f571c9d08a315f129247c04ea469946028ee1167c544b08203f\
             24aff218539286b38d91a0e35e7c9f371f5527f9abc984e356033aee14e02c2f",
            "79d4f828731de5ff3c4ad7d1ca23ab8f352c610257bb37babb7013e9b41d44f3\
             1ca2a78a22b978b28823713f6c61ed3c686b43a7c4a8eec3b7de0ae22bb4361e",
        ],
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{hex} has half a byte");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

#[test]
fn what_frr_and_bird_sent_is_accepted_with_their_key_and_no_other() {
    for (name, secret, algorithm, key_id, hex) in CAPTURED {
        let bytes = bytes(hex);
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!(envelope.auth_type, CRYPTOGRAPHIC, "{name}");
        let field = CryptographicField::decode(envelope.auth_data);
        assert_eq!(field.key_id, key_id, "{name}");
        assert_eq!(field.length, algorithm.digest_len(), "{name}");
        assert!(has_digest(algorithm, secret, &envelope), "{name}");
        assert!(!has_digest(algorithm, b"wrong horse", &envelope), "{name}");
        let packet = Packet::open(&envelope).unwrap();
        assert!(matches!(packet.body, Body::Hello(_)), "{name}");

        // We would have sent the same bytes.
        let mut ours = packet.encode();
        add_digest(algorithm, secret, key_id, field.sequence, &mut ours);
        assert_eq!(ours, bytes, "{name}");
    }
}

#[test]
fn a_simple_password_is_padded_and_outside_the_checksum() {
    let bytes = bytes(SIMPLE_HELLO);
    let envelope = Envelope::decode(&bytes).unwrap();
    assert_eq!(envelope.auth_type, SIMPLE);
    envelope.check_sum().unwrap();
    assert!(has_password(b"eightbyt", &envelope));
    assert!(!has_password(b"eightby", &envelope));
    let mut ours = Packet::open(&envelope).unwrap().encode();
    add_password(b"eightbyt", &mut ours);
    assert_eq!(ours, bytes);

    add_password(b"short", &mut ours);
    assert_eq!(&ours[16..24], b"short\0\0\0");
    let envelope = Envelope::decode(&ours).unwrap();
    envelope.check_sum().unwrap();
    assert!(has_password(b"short", &envelope));
}

#[test]
fn hmac_is_that_of_rfc_2104_for_keys_of_any_length() {
    for (algorithm, digests) in COMPUTED {
        for (length, digest) in [1, 100, 200].into_iter().zip(digests) {
            let secret = if length == 1 {
                b"k".to_vec()
            } else {
                vec![b'x'; length]
            };
            let mut packet = bytes(HELLO);
            add_digest(algorithm, &secret, 5, 1, &mut packet);
            assert_eq!(
                packet[44..],
                bytes(digest),
                "{algorithm}, key of {length} bytes"
            );
        }
    }
}

#[test]
fn a_digest_cut_short_is_not_the_digest() {
    for (name, secret, algorithm, _, hex) in CAPTURED {
        let bytes = bytes(hex);
        for length in 44..bytes.len() {
            let envelope = Envelope::decode(&bytes[..length]).unwrap();
            assert!(
                !has_digest(algorithm, secret, &envelope),
                "{name}, {length}"
            );
        }
        // A signalling block follows the digest and is not covered by it (RFC 5613).
        let mut signalling = bytes.clone();
        signalling.extend([0xff, 0xf6, 0, 3, 0, 1, 0, 4, 0, 0, 0, 1]);
        let envelope = Envelope::decode(&signalling).unwrap();
        assert!(has_digest(algorithm, secret, &envelope), "{name}");
    }
}

proptest! {
    #[test]
    fn whatever_bit_is_changed_the_digest_is_wrong(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        secret in prop::collection::vec(1_u8.., 1..=16),
        key_id: u8,
        sequence: u32,
        bit in 0..8 * 44_usize,
    ) {
        let mut packet = bytes(HELLO);
        add_digest(algorithm, &secret, key_id, sequence, &mut packet);
        let envelope = Envelope::decode(&packet).unwrap();
        prop_assert!(has_digest(algorithm, &secret, &envelope));
        let field = CryptographicField::decode(envelope.auth_data);
        prop_assert_eq!((field.key_id, field.sequence), (key_id, sequence));

        packet[bit / 8] ^= 1 << (bit % 8);
        if let Ok(envelope) = Envelope::decode(&packet) {
            prop_assert!(!has_digest(algorithm, &secret, &envelope), "bit {} is free", bit);
        }
    }
}
