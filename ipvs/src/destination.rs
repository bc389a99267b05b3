//! Destinations of a service: its real servers.

use std::fmt;
use std::net::SocketAddr;

use netlink_packet_core::{DecodeError, ErrorContext};

use crate::attribute::{self, Attributes, required};
use crate::service::Family;
use crate::stats::Stats;

const ADDR: u16 = 1;
const PORT: u16 = 2;
const FWD_METHOD: u16 = 3;
const WEIGHT: u16 = 4;
const U_THRESH: u16 = 5;
const L_THRESH: u16 = 6;
const ACTIVE_CONNS: u16 = 7;
const INACT_CONNS: u16 = 8;
const PERSIST_CONNS: u16 = 9;
const STATS: u16 = 10;
const ADDR_FAMILY: u16 = 11;
const STATS64: u16 = 12;
const TUN_TYPE: u16 = 13;
const TUN_PORT: u16 = 14;
const TUN_FLAGS: u16 = 15;

/// How packets reach a destination (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// Network address translation.
    Masquerade,
    /// The destination is this host itself.
    Local,
    /// In a tunnel.
    Tunnel,
    /// In a frame to the destination's own MAC address.
    DirectRoute,
    /// Past IPVS, to where the packet was going (cache bypass).
    Bypass,
    /// A method this library does not know, by its number.
    Unknown(u32),
}

impl Forwarding {
    fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel => 2,
            Self::DirectRoute => 3,
            Self::Bypass => 4,
            Self::Unknown(number) => number,
        }
    }

    pub(crate) fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Masquerade,
            1 => Self::Local,
            2 => Self::Tunnel,
            3 => Self::DirectRoute,
            4 => Self::Bypass,
            _ => Self::Unknown(number),
        }
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("masquerade"),
            Self::Local => f.write_str("local"),
            Self::Tunnel => f.write_str("tunnel"),
            Self::DirectRoute => f.write_str("direct route"),
            Self::Bypass => f.write_str("bypass"),
            Self::Unknown(number) => write!(f, "method {number}"),
        }
    }
}

/// The kind of a tunnel (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
    /// A kind this library does not know, by its number.
    Unknown(u8),
}

impl TunnelKind {
    fn number(self) -> u8 {
        match self {
            Self::Ipip => 0,
            Self::Gue => 1,
            Self::Gre => 2,
            Self::Unknown(number) => number,
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Ipip,
            1 => Self::Gue,
            2 => Self::Gre,
            _ => Self::Unknown(number),
        }
    }
}

/// The tunnel to a destination; the kernel keeps it for every forwarding method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Its kind.
    pub kind: TunnelKind,
    /// Its UDP port (GUE).
    pub port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub flags: u16,
}

/// A destination that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DestinationSpec {
    /// Its address and port, its identity in the service.
    pub address: SocketAddr,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its weight; 0 takes no new connections. The kernel refuses more than `i32::MAX`.
    pub weight: u32,
    /// From this many connections on it takes no more; 0 for no limit.
    pub upper_threshold: u32,
    /// Below this many it takes connections again.
    pub lower_threshold: u32,
    /// The tunnel to it.
    pub tunnel: Tunnel,
}

impl DestinationSpec {
    /// A destination without thresholds, tunnelled to by IPIP if at all.
    pub fn new(address: SocketAddr, forwarding: Forwarding, weight: u32) -> Self {
        Self {
            address,
            forwarding,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
        }
    }

    /// All attributes of a destination to add or set, in ipvsadm's order.
    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = identity(self.address);
        attributes.extend([
            attribute::u32(FWD_METHOD, self.forwarding.number()),
            attribute::u32(WEIGHT, self.weight),
            attribute::u8(TUN_TYPE, self.tunnel.kind.number()),
            attribute::be16(TUN_PORT, self.tunnel.port),
            attribute::u16(TUN_FLAGS, self.tunnel.flags),
            attribute::u32(U_THRESH, self.upper_threshold),
            attribute::u32(L_THRESH, self.lower_threshold),
        ]);
        attributes
    }
}

/// The attributes that identify a destination in its service.
pub(crate) fn identity(address: SocketAddr) -> Attributes {
    vec![
        attribute::u16(ADDR_FAMILY, Family::of(address.ip()).number()),
        attribute::address(ADDR, address.ip()),
        attribute::be16(PORT, address.port()),
    ]
}

/// A destination in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// What it is.
    pub spec: DestinationSpec,
    /// Its active connections; always 0 for UDP.
    pub active: u32,
    /// Its inactive connections.
    pub inactive: u32,
    /// Its persistence templates.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

impl Destination {
    /// Reads the inside of `IPVS_CMD_ATTR_DEST`. Unknown attributes are passed over. `family`
    /// is the service's: kernels before 3.18 do not say the destination's, which is the same.
    pub(crate) fn parse(bytes: &[u8], family: Family) -> Result<Self, DecodeError> {
        let mut address = None;
        let mut port = None;
        let mut family = family;
        let mut forwarding = None;
        let mut weight = None;
        let mut tunnel = Tunnel::default();
        let (mut upper_threshold, mut lower_threshold) = (0, 0);
        let (mut active, mut inactive, mut persistent) = (0, 0, 0);
        let (mut stats, mut stats64) = (None, None);
        for attribute in attribute::read(bytes) {
            let attribute = attribute.context("destination")?;
            let value = attribute.value();
            match attribute.kind {
                ADDR => address = Some(value),
                PORT => port = Some(attribute.be16("IPVS_DEST_ATTR_PORT")?),
                ADDR_FAMILY => {
                    let name = "IPVS_DEST_ATTR_ADDR_FAMILY";
                    family = Family::from_number(attribute.u16(name)?, name)?;
                }
                FWD_METHOD => forwarding = Some(attribute.u32("IPVS_DEST_ATTR_FWD_METHOD")?),
                WEIGHT => weight = Some(attribute.u32("IPVS_DEST_ATTR_WEIGHT")?),
                U_THRESH => upper_threshold = attribute.u32("IPVS_DEST_ATTR_U_THRESH")?,
                L_THRESH => lower_threshold = attribute.u32("IPVS_DEST_ATTR_L_THRESH")?,
                ACTIVE_CONNS => active = attribute.u32("IPVS_DEST_ATTR_ACTIVE_CONNS")?,
                INACT_CONNS => inactive = attribute.u32("IPVS_DEST_ATTR_INACT_CONNS")?,
                PERSIST_CONNS => persistent = attribute.u32("IPVS_DEST_ATTR_PERSIST_CONNS")?,
                TUN_TYPE => {
                    let number = attribute.u8("IPVS_DEST_ATTR_TUN_TYPE")?;
                    tunnel.kind = TunnelKind::from_number(number);
                }
                TUN_PORT => tunnel.port = attribute.be16("IPVS_DEST_ATTR_TUN_PORT")?,
                TUN_FLAGS => tunnel.flags = attribute.u16("IPVS_DEST_ATTR_TUN_FLAGS")?,
                STATS => stats = Some(Stats::parse(value)?),
                STATS64 => stats64 = Some(Stats::parse(value)?),
                _ => {}
            }
        }
        let bytes = required(address, "IPVS_DEST_ATTR_ADDR")?;
        let port = required(port, "IPVS_DEST_ATTR_PORT")?;
        let forwarding = required(forwarding, "IPVS_DEST_ATTR_FWD_METHOD")?;
        Ok(Self {
            spec: DestinationSpec {
                address: attribute::socket_address(bytes, port, family, "IPVS_DEST_ATTR_ADDR")?,
                forwarding: Forwarding::from_number(forwarding),
                weight: required(weight, "IPVS_DEST_ATTR_WEIGHT")?,
                upper_threshold,
                lower_threshold,
                tunnel,
            },
            active,
            inactive,
            persistent,
            // Kernels before 4.1 know only the 32 bit counters.
            stats: stats64.or(stats).unwrap_or_default(),
        })
    }
}
