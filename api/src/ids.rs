//! Identifiers and units, each a type of its own so that they cannot be mixed up.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that does not have the form of the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct ParseIdError {
    /// What would have been accepted.
    pub expected: &'static str,
    /// What stood there.
    pub found: String,
}

impl ParseIdError {
    fn new(expected: &'static str, found: &str) -> Self {
        Self {
            expected,
            found: found.to_owned(),
        }
    }
}

/// Reads a type through its `FromStr`, from a text that is only borrowed: a report has hundreds.
macro_rules! deserialize_from_text {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use deserialize_from_text;

/// Serialises a type through its `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        crate::ids::deserialize_from_text!($type);
    };
}
pub(crate) use serde_as_text;

macro_rules! dotted_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Ipv4Addr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| ParseIdError::new($expected, text))
            }
        }

        serde_as_text!($name);
    };
}

dotted_id!(
    /// An OSPF router id (RFC 2328 §1.2), written as a dotted quad.
    RouterId,
    "a router id as a dotted quad such as 10.0.1.2"
);
dotted_id!(
    /// An OSPF area id (RFC 2328 §3), written as a dotted quad.
    AreaId,
    "an area id as a dotted quad such as 0.0.0.0"
);

/// A name is shared by its copies: snapshots and views have it many times.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if is_label(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseIdError::new(
                        "a name of 1 to 63 lower-case letters, digits and inner hyphens",
                        text,
                    ))
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        deserialize_from_text!($name);
    };
}

name!(
    /// The name of a cluster, unique in a controller.
    ClusterName
);
name!(
    /// The name of a director, unique in its cluster.
    DirectorName
);

/// A DNS label (RFC 1035 §2.3.1, digits allowed first), so that names fit in URLs and labels.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// A virtual IP address: always one host. Read as `10.99.0.1` or `10.99.0.1/32`, written
/// without the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip(pub Ipv4Addr);

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vip {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "an IPv4 host address such as 10.99.0.1/32";
        let address: Ipv4Addr = text
            .strip_suffix("/32")
            .unwrap_or(text)
            .parse()
            .map_err(|_| ParseIdError::new(expected, text))?;
        if address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback()
        {
            return Err(ParseIdError::new(expected, text));
        }
        Ok(Self(address))
    }
}

serde_as_text!(Vip);

/// The transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// What identifies a service in its cluster, written `tcp:10.99.0.1:80` or `fwmark:10.99.0.1:7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// The VIP the service is reached at.
    pub vip: Vip,
    /// Which of its packets are the service's.
    pub packets: Packets,
}

/// Which packets are a service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packets {
    /// Those to a port of its VIP.
    To {
        /// The transport protocol.
        protocol: Protocol,
        /// The port, never 0.
        port: u16,
    },
    /// Those that the director's firewall gives this mark, never 0, whatever they are.
    Marked(u32),
}

impl ServiceId {
    /// The service at a port of `vip`.
    pub fn to(protocol: Protocol, vip: Vip, port: u16) -> Self {
        let packets = Packets::To { protocol, port };
        Self { vip, packets }
    }

    /// All that a VIP can have, to look for those that it has.
    pub fn all_of(vip: Vip) -> RangeInclusive<Self> {
        let first = Self::to(Protocol::Tcp, vip, 0);
        let packets = Packets::Marked(u32::MAX);
        first..=Self { vip, packets }
    }

    /// The port it is reached at; nothing where a mark decides.
    pub fn port(self) -> Option<u16> {
        match self.packets {
            Packets::To { port, .. } => Some(port),
            Packets::Marked(_) => None,
        }
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { protocol, port } => write!(f, "{protocol}:{port}"),
            Self::Marked(mark) => write!(f, "fwmark:{mark}"),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vip = self.vip;
        match self.packets {
            Packets::To { protocol, port } => write!(f, "{protocol}:{vip}:{port}"),
            Packets::Marked(mark) => write!(f, "fwmark:{vip}:{mark}"),
        }
    }
}

impl FromStr for ServiceId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a service such as tcp:10.99.0.1:80 or fwmark:10.99.0.1:7";
        let error = || ParseIdError::new(expected, text);
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        let (vip, number) = rest.rsplit_once(':').ok_or_else(error)?;
        let vip = vip.parse().map_err(|_| error())?;
        let number: u32 = number.parse().map_err(|_| error())?;
        let to = |protocol| {
            let port = u16::try_from(number).map_err(|_| error())?;
            Ok(Packets::To { protocol, port })
        };
        let packets = match kind {
            _ if number == 0 => return Err(error()),
            "tcp" => to(Protocol::Tcp)?,
            "udp" => to(Protocol::Udp)?,
            "sctp" => to(Protocol::Sctp)?,
            "fwmark" => Packets::Marked(number),
            _ => return Err(error()),
        };
        Ok(Self { vip, packets })
    }
}

serde_as_text!(ServiceId);

/// What identifies a real server in its service, written `10.1.0.11:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerId(pub SocketAddrV4);

impl fmt::Display for RealServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RealServerId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| ParseIdError::new("a real server such as 10.1.0.11:80", text))
    }
}

serde_as_text!(RealServerId);

/// The state of an OSPF neighbour (RFC 2328 §10.1), numbered as FRR's MIB does: 1 = Down … 8 = Full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the variants are RFC 2328's own state names")]
pub enum NeighborState {
    Down = 1,
    Attempt = 2,
    Init = 3,
    #[serde(rename = "2-Way")]
    TwoWay = 4,
    ExStart = 5,
    Exchange = 6,
    Loading = 7,
    Full = 8,
}

impl fmt::Display for NeighborState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "Down",
            Self::Attempt => "Attempt",
            Self::Init => "Init",
            Self::TwoWay => "2-Way",
            Self::ExStart => "ExStart",
            Self::Exchange => "Exchange",
            Self::Loading => "Loading",
            Self::Full => "Full",
        })
    }
}

/// The state of a BFD session (RFC 5880 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the variants are RFC 5880's own state names")]
pub enum BfdState {
    AdminDown = 0,
    Down = 1,
    Init = 2,
    Up = 3,
}

impl fmt::Display for BfdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_read_with_and_without_its_length_and_is_never_a_net() {
        let vip: Vip = "10.99.0.1/32".parse().unwrap();
        assert_eq!(vip, "10.99.0.1".parse().unwrap());
        assert_eq!(vip.to_string(), "10.99.0.1");
        for bad in [
            "10.99.0.0/24",
            "10.99.0.1/",
            "224.0.0.5",
            "127.0.0.1",
            "0.0.0.0",
            "",
        ] {
            assert!(bad.parse::<Vip>().is_err(), "{bad:?} was read as a VIP");
        }
    }

    #[test]
    fn a_service_id_survives_its_text() {
        let id: ServiceId = "tcp:10.99.0.1:80".parse().unwrap();
        assert_eq!(id, ServiceId::to(Protocol::Tcp, id.vip, 80));
        for text in [
            "tcp:10.99.0.1:80",
            "udp:10.99.0.1:53",
            "sctp:10.99.0.1:2905",
            "fwmark:10.99.0.1:4294967295",
        ] {
            let id: ServiceId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        for bad in [
            "tcp:10.99.0.1",
            "icmp:10.99.0.1:80",
            "tcp:10.99.0.1:0",
            "tcp:10.99.0.1:65536",
            "fwmark:10.99.0.1:0",
            "tcp:x:80",
        ] {
            let error = bad.parse::<ServiceId>().unwrap_err();
            assert!(
                error.to_string().contains(bad),
                "{error} does not say what it found"
            );
        }
    }

    #[test]
    fn all_that_a_vip_can_have_are_in_its_range_and_no_other_s() {
        let range = ServiceId::all_of("10.99.0.2".parse().unwrap());
        for (text, expected) in [
            ("tcp:10.99.0.2:1", true),
            ("sctp:10.99.0.2:65535", true),
            ("fwmark:10.99.0.2:1", true),
            ("fwmark:10.99.0.2:4294967295", true),
            ("fwmark:10.99.0.1:4294967295", false),
            ("tcp:10.99.0.3:1", false),
        ] {
            assert_eq!(range.contains(&text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["d1", "edge-fra", "1", &"a".repeat(63)] {
            assert_eq!(good.parse::<DirectorName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", &"a".repeat(64)] {
            assert!(
                bad.parse::<ClusterName>().is_err(),
                "{bad:?} was read as a name"
            );
        }
    }
}
