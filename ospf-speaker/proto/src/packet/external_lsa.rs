//! The body of an AS-external-LSA, type 5 (RFC 2328 §A.4.5), and of a type 7 LSA, which has the
//! same layout (RFC 3101, appendix A).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::error::DecodeError;
use super::wire::Reader;

/// The length of one metric for another type of service.
const TOS_LEN: usize = 12;
/// The bit of the metric's first byte that says type 2.
const TYPE_2: u8 = 0x80;

/// A route to somewhere outside of OSPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExternalLsa {
    /// The mask of the route; its address is the Link State ID.
    pub mask: Ipv4Addr,
    /// How the metric compares with the costs within OSPF.
    pub kind: ExternalKind,
    /// The cost of the route. Metrics for other types of service than 0 are passed over.
    pub metric: ExternalMetric,
    /// Where to send the packets; 0.0.0.0: to the router that originated the LSA.
    pub forwarding_address: Ipv4Addr,
    /// External Route Tag, which OSPF does not look at.
    pub tag: u32,
}

/// The type of an external metric (RFC 2328 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalKind {
    /// E1: in the units of OSPF; the cost to the originating router is added.
    Type1,
    /// E2: greater than any cost within OSPF, which only decides between equal metrics.
    Type2,
}

/// A metric of 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalMetric(u32);

impl ExternalMetric {
    /// LSInfinity (RFC 2328 §B): the destination is unreachable.
    pub const INFINITY: Self = Self(0x00ff_ffff);

    /// A metric; none above [`Self::INFINITY`].
    pub fn new(metric: u32) -> Option<Self> {
        (metric <= Self::INFINITY.0).then_some(Self(metric))
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0
    }
}

impl From<u16> for ExternalMetric {
    fn from(metric: u16) -> Self {
        Self(metric.into())
    }
}

impl ExternalLsa {
    /// Decodes a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mask = reader.ipv4("Network Mask")?;
        let flags = reader.u8("the E bit")?;
        let [m0, m1, m2] = reader.array("metric")?;
        let lsa = Self {
            mask,
            kind: if flags & TYPE_2 == 0 {
                ExternalKind::Type1
            } else {
                ExternalKind::Type2
            },
            metric: ExternalMetric(u32::from_be_bytes([0, m0, m1, m2])),
            forwarding_address: reader.ipv4("Forwarding address")?,
            tag: reader.u32("External Route Tag")?,
        };
        reader
            .entries::<TOS_LEN>("TOS metric of an external LSA")
            .map(drop)?;
        Ok(lsa)
    }

    /// Encodes the body.
    pub fn encode(&self) -> Vec<u8> {
        let flags = match self.kind {
            ExternalKind::Type1 => 0,
            ExternalKind::Type2 => TYPE_2,
        };
        let [_, m0, m1, m2] = self.metric.0.to_be_bytes();
        let mut body = self.mask.octets().to_vec();
        body.extend([flags, m0, m1, m2]);
        body.extend(self.forwarding_address.octets());
        body.extend(self.tag.to_be_bytes());
        body
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A /24 at E1 cost 5 by way of 10.0.1.7, tag 42.
    const BODY: [u8; 16] = [
        255, 255, 255, 0, 0x00, 0x00, 0x00, 0x05, 10, 0, 1, 7, 0x00, 0x00, 0x00, 0x2a,
    ];

    #[test]
    fn each_field_is_where_the_rfc_has_it() {
        let lsa = ExternalLsa::decode(&BODY).unwrap();
        let expected = ExternalLsa {
            mask: Ipv4Addr::new(255, 255, 255, 0),
            kind: ExternalKind::Type1,
            metric: ExternalMetric::from(5),
            forwarding_address: Ipv4Addr::new(10, 0, 1, 7),
            tag: 42,
        };
        assert_eq!(lsa, expected);
        assert_eq!(lsa.encode(), BODY);

        let mut type_2 = BODY;
        type_2[4..8].copy_from_slice(&[0x80, 0xff, 0xff, 0xff]);
        let lsa = ExternalLsa::decode(&type_2).unwrap();
        assert_eq!(lsa.kind, ExternalKind::Type2);
        assert_eq!(lsa.metric, ExternalMetric::INFINITY);
        assert_eq!(lsa.encode(), type_2);
    }

    #[test]
    fn metrics_of_other_services_are_passed_over_and_half_of_one_is_an_error() {
        let mut body = BODY.to_vec();
        body.extend([0x08, 0, 0, 9, 10, 0, 1, 8, 0, 0, 0, 1]);
        assert_eq!(ExternalLsa::decode(&body), ExternalLsa::decode(&BODY));
        body.pop();
        assert_eq!(
            ExternalLsa::decode(&body).unwrap_err().to_string(),
            "11 bytes are left over after the last TOS metric of an external LSA"
        );
        assert_eq!(
            ExternalLsa::decode(&BODY[..10]).unwrap_err().to_string(),
            "Forwarding address needs 4 bytes, 2 are left"
        );
    }

    #[test]
    fn a_metric_has_24_bits() {
        assert_eq!(
            ExternalMetric::new(0x00ff_ffff),
            Some(ExternalMetric::INFINITY)
        );
        assert_eq!(ExternalMetric::new(0x0100_0000), None);
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_is_the_identity(
            (mask, type_2, metric) in (any::<u32>(), any::<bool>(), 0..=0x00ff_ffff_u32),
            (forwarding, tag) in (any::<u32>(), any::<u32>()),
        ) {
            let lsa = ExternalLsa {
                mask: mask.into(),
                kind: if type_2 { ExternalKind::Type2 } else { ExternalKind::Type1 },
                metric: ExternalMetric::new(metric).unwrap(),
                forwarding_address: forwarding.into(),
                tag,
            };
            prop_assert_eq!(ExternalLsa::decode(&lsa.encode()), Ok(lsa));
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            // What is checked is that decoding returns; most bodies are not valid.
            if let Ok(lsa) = ExternalLsa::decode(&body) {
                prop_assert_eq!(&lsa.encode()[8..], &body[8..16]);
            }
        }
    }
}
