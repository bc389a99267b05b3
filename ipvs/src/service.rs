//! Virtual services.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DecodeError, DefaultNla, ErrorContext};

use crate::attribute::{self, Attributes, required};
use crate::stats::Stats;

const AF: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDR: u16 = 3;
const PORT: u16 = 4;
const FWMARK: u16 = 5;
const SCHED_NAME: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
const STATS: u16 = 10;
const PE_NAME: u16 = 11;
const STATS64: u16 = 12;

/// The family of a service's or a destination's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The kernel's number: `AF_INET` or `AF_INET6`.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(crate) fn from_number(number: u16, name: &str) -> Result<Self, DecodeError> {
        match number {
            2 => Ok(Self::V4),
            10 => Ok(Self::V6),
            _ => Err(format!("{name}: unknown address family {number}").into()),
        }
    }
}

/// The transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Another one, by its number.
    Other(u16),
}

impl Protocol {
    fn number(self) -> u16 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            _ => Self::Other(number),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Sctp => f.write_str("sctp"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What identifies a service in its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// Packets to an address and port.
    Address {
        /// The transport protocol.
        protocol: Protocol,
        /// The address and port; port 0 stands for all ports.
        address: SocketAddr,
    },
    /// Packets with a firewall mark.
    Mark {
        /// The family of the packets.
        family: Family,
        /// The mark, never 0.
        mark: u32,
    },
}

impl ServiceKey {
    /// The TCP service at `address`.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Address {
            protocol: Protocol::Tcp,
            address,
        }
    }

    /// The UDP service at `address`.
    pub fn udp(address: SocketAddr) -> Self {
        Self::Address {
            protocol: Protocol::Udp,
            address,
        }
    }

    /// The family of the service's packets.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address.ip()),
            Self::Mark { family, .. } => *family,
        }
    }

    /// The attributes that identify the service, in ipvsadm's order.
    pub(crate) fn attributes(&self) -> Attributes {
        let family = attribute::u16(AF, self.family().number());
        match *self {
            Self::Address { protocol, address } => vec![
                family,
                attribute::u16(PROTOCOL, protocol.number()),
                attribute::address(ADDR, address.ip()),
                attribute::be16(PORT, address.port()),
            ],
            Self::Mark { mark, .. } => vec![family, attribute::u32(FWMARK, mark)],
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Mark { mark, family } => {
                let six = if *family == Family::V6 { " (IPv6)" } else { "" };
                write!(f, "fwmark {mark}{six}")
            }
        }
    }
}

/// `IP_VS_SVC_F_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The service is persistent.
    pub const PERSISTENT: Self = Self(0x0001);
    /// The service is in the kernel's table: set by the kernel alone.
    pub const HASHED: Self = Self(0x0002);
    /// Each packet is scheduled by itself (UDP).
    pub const ONE_PACKET: Self = Self(0x0004);
    /// The scheduler's first flag.
    pub const SCHED1: Self = Self(0x0008);
    /// The scheduler's second flag.
    pub const SCHED2: Self = Self(0x0010);
    /// The scheduler's third flag.
    pub const SCHED3: Self = Self(0x0020);
    /// `mh`: take another destination when the hashed one is unavailable (`ip_vs_mh.c`).
    pub const MH_FALLBACK: Self = Self::SCHED1;
    /// `mh`: hash the client's port too (`ip_vs_mh.c`).
    pub const MH_PORT: Self = Self::SCHED2;

    /// The flags with these bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for ServiceFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The four bytes of `IPVS_SVC_ATTR_NETMASK`: the mask in network order for IPv4, the prefix
/// length in host order for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Netmask(pub [u8; 4]);

impl Netmask {
    /// The mask of one host.
    pub fn host(family: Family) -> Self {
        match family {
            Family::V4 => Self([0xff; 4]),
            Family::V6 => Self(128_u32.to_ne_bytes()),
        }
    }
}

/// How long and how widely a client sticks to its destination. It counts only with
/// [`ServiceFlags::PERSISTENT`], but the kernel wants and keeps it always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// Seconds.
    pub timeout: u32,
    /// Clients that this mask makes equal are one.
    pub netmask: Netmask,
}

impl Persistence {
    /// What a service has that is not persistent.
    pub fn none(family: Family) -> Self {
        Self {
            timeout: 0,
            netmask: Netmask::host(family),
        }
    }
}

/// A service that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its identity.
    pub key: ServiceKey,
    /// The scheduler's name; `none` for a service without one.
    pub scheduler: String,
    /// Its flags. [`ServiceFlags::HASHED`] is the kernel's and is not written.
    pub flags: ServiceFlags,
    /// Its persistence.
    pub persistence: Persistence,
    /// The persistence engine's name, such as `sip`.
    pub persistence_engine: Option<String>,
}

impl ServiceSpec {
    /// A service without flags or persistence.
    pub fn new(key: ServiceKey, scheduler: impl Into<String>) -> Self {
        Self {
            key,
            scheduler: scheduler.into(),
            flags: ServiceFlags::NONE,
            persistence: Persistence::none(key.family()),
            persistence_engine: None,
        }
    }

    /// All attributes of a service to add or set, in ipvsadm's order.
    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = self.key.attributes();
        attributes.push(attribute::string(SCHED_NAME, &self.scheduler));
        if let Some(name) = &self.persistence_engine {
            attributes.push(attribute::string(PE_NAME, name));
        }
        attributes.push(flags_attribute(self.flags));
        attributes.push(attribute::u32(TIMEOUT, self.persistence.timeout));
        let netmask = self.persistence.netmask.0.to_vec();
        attributes.push(DefaultNla::new(NETMASK, netmask));
        attributes
    }
}

/// `struct ip_vs_flags`: the flags, then the mask of those that are to change. All may change:
/// the kernel keeps its own flag whatever is written.
fn flags_attribute(flags: ServiceFlags) -> DefaultNla {
    let flags = flags.without(ServiceFlags::HASHED);
    let mut bytes = flags.bits().to_ne_bytes().to_vec();
    bytes.extend(u32::MAX.to_ne_bytes());
    DefaultNla::new(FLAGS, bytes)
}

/// A service in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is. Its flags are without [`ServiceFlags::HASHED`].
    pub spec: ServiceSpec,
    /// Its counters.
    pub stats: Stats,
}

/// The attributes of a service as they are read, before they are put together.
#[derive(Default)]
struct Parts<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    mark: Option<u32>,
    scheduler: Option<String>,
    flags: Option<u32>,
    timeout: Option<u32>,
    netmask: Option<[u8; 4]>,
    persistence_engine: Option<String>,
    stats: Option<Stats>,
    stats64: Option<Stats>,
}

impl Service {
    /// Reads the inside of `IPVS_CMD_ATTR_SERVICE`. Unknown attributes are passed over.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut parts = Parts::default();
        for attribute in attribute::read(bytes) {
            parts.take(&attribute.context("service")?)?;
        }
        parts.put_together()
    }
}

impl<'a> Parts<'a> {
    fn take(&mut self, attribute: &attribute::Read<'a>) -> Result<(), DecodeError> {
        let value = attribute.value();
        match attribute.kind {
            AF => self.family = Some(attribute.u16("IPVS_SVC_ATTR_AF")?),
            PROTOCOL => self.protocol = Some(attribute.u16("IPVS_SVC_ATTR_PROTOCOL")?),
            ADDR => self.address = Some(value),
            PORT => self.port = Some(attribute.be16("IPVS_SVC_ATTR_PORT")?),
            FWMARK => self.mark = Some(attribute.u32("IPVS_SVC_ATTR_FWMARK")?),
            SCHED_NAME => self.scheduler = Some(attribute.string("IPVS_SVC_ATTR_SCHED_NAME")?),
            FLAGS => self.flags = Some(flags(value)?),
            TIMEOUT => self.timeout = Some(attribute.u32("IPVS_SVC_ATTR_TIMEOUT")?),
            NETMASK => self.netmask = Some(netmask(value)?),
            PE_NAME => {
                self.persistence_engine = Some(attribute.string("IPVS_SVC_ATTR_PE_NAME")?);
            }
            STATS => self.stats = Some(Stats::parse(value)?),
            STATS64 => self.stats64 = Some(Stats::parse(value)?),
            _ => {}
        }
        Ok(())
    }

    fn put_together(self) -> Result<Service, DecodeError> {
        let family = required(self.family, "IPVS_SVC_ATTR_AF")?;
        let family = Family::from_number(family, "IPVS_SVC_ATTR_AF")?;
        let key = match self.mark {
            Some(mark) => ServiceKey::Mark { family, mark },
            None => {
                let bytes = required(self.address, "IPVS_SVC_ATTR_ADDR")?;
                let port = required(self.port, "IPVS_SVC_ATTR_PORT")?;
                let protocol = required(self.protocol, "IPVS_SVC_ATTR_PROTOCOL")?;
                ServiceKey::Address {
                    protocol: Protocol::from_number(protocol),
                    address: attribute::socket_address(bytes, port, family, "IPVS_SVC_ATTR_ADDR")?,
                }
            }
        };
        let flags = ServiceFlags(required(self.flags, "IPVS_SVC_ATTR_FLAGS")?);
        Ok(Service {
            spec: ServiceSpec {
                key,
                scheduler: required(self.scheduler, "IPVS_SVC_ATTR_SCHED_NAME")?,
                flags: flags.without(ServiceFlags::HASHED),
                persistence: Persistence {
                    timeout: required(self.timeout, "IPVS_SVC_ATTR_TIMEOUT")?,
                    netmask: Netmask(required(self.netmask, "IPVS_SVC_ATTR_NETMASK")?),
                },
                persistence_engine: self.persistence_engine,
            },
            // Kernels before 4.1 know only the 32 bit counters.
            stats: self.stats64.or(self.stats).unwrap_or_default(),
        })
    }
}

fn flags(value: &[u8]) -> Result<u32, DecodeError> {
    let bytes = value
        .first_chunk::<4>()
        .ok_or_else(|| DecodeError::invalid_buffer("IPVS_SVC_ATTR_FLAGS", value.len(), 4))?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn netmask(value: &[u8]) -> Result<[u8; 4], DecodeError> {
    <[u8; 4]>::try_from(value)
        .map_err(|_| DecodeError::invalid_buffer("IPVS_SVC_ATTR_NETMASK", value.len(), 4))
}
