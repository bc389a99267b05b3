//! Destinations of a service: its real servers.

use std::fmt;
use std::net::SocketAddr;

use netlink_packet_core::{DecodeError, ErrorContext};

use crate::attribute::{self, UnknownAttribute, Writer, required};
use crate::service::{family_from_number, family_number};
use crate::stats::Stats;
use isopath_mh::Family;

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

/// The checksum of a tunnel's packets (`IP_VS_TUNNEL_ENCAP_FLAG_*`, since Linux 5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Of the whole packet.
    Full,
    /// Offloaded to the remote end (GUE).
    Remote,
    /// Flags this library does not know.
    Unknown(u16),
}

impl TunnelChecksum {
    fn number(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Full => 1,
            Self::Remote => 2,
            Self::Unknown(flags) => flags,
        }
    }

    pub(crate) fn from_number(number: u16) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Full,
            2 => Self::Remote,
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
    /// Its checksum (GUE and GRE).
    pub checksum: TunnelChecksum,
}

/// A destination that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// What the kernel said beyond that. It is written back: who changes a destination that was
    /// read keeps it, and so does not reset what only a newer kernel knows.
    pub unknown: Box<[UnknownAttribute]>,
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
            unknown: Box::default(),
        }
    }

    /// Writes all attributes of a destination to add or set, in ipvsadm's order.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        write_identity(self.address, writer);
        writer.u32(FWD_METHOD, self.forwarding.number());
        writer.u32(WEIGHT, self.weight);
        writer.u8(TUN_TYPE, self.tunnel.kind.number());
        writer.be16(TUN_PORT, self.tunnel.port);
        writer.u16(TUN_FLAGS, self.tunnel.checksum.number());
        writer.u32(U_THRESH, self.upper_threshold);
        writer.u32(L_THRESH, self.lower_threshold);
        for unknown in &self.unknown {
            writer.bytes(unknown.kind, &unknown.value);
        }
    }
}

/// Writes the attributes that identify a destination in its service.
pub(crate) fn write_identity(address: SocketAddr, writer: &mut Writer<'_>) {
    writer.u16(ADDR_FAMILY, family_number(Family::of(address.ip())));
    writer.address(ADDR, address.ip());
    writer.be16(PORT, address.port());
}

/// A destination in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Reads the inside of `IPVS_CMD_ATTR_DEST`. `family` is the service's: kernels before 3.18
    /// do not say the destination's, which is the same.
    pub(crate) fn parse(bytes: &[u8], family: Family) -> Result<Self, DecodeError> {
        let mut parts = Parts::default();
        for attribute in attribute::read(bytes) {
            parts.take(&attribute.context("destination")?)?;
        }
        parts.put_together(family)
    }
}

/// The attributes of a destination as they are read, before they are put together.
#[derive(Default)]
struct Parts<'a> {
    family: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    forwarding: Option<u32>,
    weight: Option<u32>,
    upper_threshold: u32,
    lower_threshold: u32,
    tunnel: Tunnel,
    active: u32,
    inactive: u32,
    persistent: u32,
    stats: Option<&'a [u8]>,
    stats64: Option<&'a [u8]>,
    unknown: Vec<UnknownAttribute>,
}

impl<'a> Parts<'a> {
    fn take(&mut self, attribute: &attribute::Read<'a>) -> Result<(), DecodeError> {
        let value = attribute.value();
        match attribute.kind {
            ADDR => self.address = Some(value),
            PORT => self.port = Some(attribute.be16("IPVS_DEST_ATTR_PORT")?),
            ADDR_FAMILY => self.family = Some(attribute.u16("IPVS_DEST_ATTR_ADDR_FAMILY")?),
            FWD_METHOD => self.forwarding = Some(attribute.u32("IPVS_DEST_ATTR_FWD_METHOD")?),
            WEIGHT => self.weight = Some(attribute.u32("IPVS_DEST_ATTR_WEIGHT")?),
            U_THRESH => self.upper_threshold = attribute.u32("IPVS_DEST_ATTR_U_THRESH")?,
            L_THRESH => self.lower_threshold = attribute.u32("IPVS_DEST_ATTR_L_THRESH")?,
            ACTIVE_CONNS => self.active = attribute.u32("IPVS_DEST_ATTR_ACTIVE_CONNS")?,
            INACT_CONNS => self.inactive = attribute.u32("IPVS_DEST_ATTR_INACT_CONNS")?,
            PERSIST_CONNS => self.persistent = attribute.u32("IPVS_DEST_ATTR_PERSIST_CONNS")?,
            TUN_TYPE => {
                let number = attribute.u8("IPVS_DEST_ATTR_TUN_TYPE")?;
                self.tunnel.kind = TunnelKind::from_number(number);
            }
            TUN_PORT => self.tunnel.port = attribute.be16("IPVS_DEST_ATTR_TUN_PORT")?,
            TUN_FLAGS => {
                let number = attribute.u16("IPVS_DEST_ATTR_TUN_FLAGS")?;
                self.tunnel.checksum = TunnelChecksum::from_number(number);
            }
            STATS => self.stats = Some(value),
            STATS64 => self.stats64 = Some(value),
            _ => self.unknown.push(UnknownAttribute::new(attribute)),
        }
        Ok(())
    }

    fn put_together(self, family: Family) -> Result<Destination, DecodeError> {
        let family = match self.family {
            Some(number) => family_from_number(number, "IPVS_DEST_ATTR_ADDR_FAMILY")?,
            None => family,
        };
        let bytes = required(self.address, "IPVS_DEST_ATTR_ADDR")?;
        let port = required(self.port, "IPVS_DEST_ATTR_PORT")?;
        let forwarding = required(self.forwarding, "IPVS_DEST_ATTR_FWD_METHOD")?;
        Ok(Destination {
            spec: DestinationSpec {
                address: attribute::socket_address(bytes, port, family, "IPVS_DEST_ATTR_ADDR")?,
                forwarding: Forwarding::from_number(forwarding),
                weight: required(self.weight, "IPVS_DEST_ATTR_WEIGHT")?,
                upper_threshold: self.upper_threshold,
                lower_threshold: self.lower_threshold,
                tunnel: self.tunnel,
                unknown: self.unknown.into(),
            },
            active: self.active,
            inactive: self.inactive,
            persistent: self.persistent,
            stats: Stats::parse_either(self.stats64, self.stats)?,
        })
    }
}
