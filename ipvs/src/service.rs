//! Virtual services.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use netlink_packet_core::{DecodeError, ErrorContext};

use isopath_mh::Family;

use crate::attribute::{self, UnknownAttribute, Writer, required};
use crate::flags::ServiceFlags;
use crate::scheduler::Scheduler;
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

/// The kernel's number of an address family: `AF_INET` or `AF_INET6`.
pub(crate) fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

pub(crate) fn family_from_number(number: u16, name: &str) -> Result<Family, DecodeError> {
    match number {
        2 => Ok(Family::V4),
        10 => Ok(Family::V6),
        _ => Err(format!("{name}: unknown address family {number}").into()),
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
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u16) -> Self {
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

    /// The service of packets to `address` of that protocol.
    pub fn address(protocol: Protocol, address: SocketAddr) -> Self {
        Self::Address { protocol, address }
    }

    /// The service of packets of that family with a firewall mark.
    pub fn mark(family: Family, mark: u32) -> Self {
        Self::Mark { family, mark }
    }

    /// Writes the attributes that identify the service, in ipvsadm's order.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(AF, family_number(self.family()));
        match *self {
            Self::Address { protocol, address } => {
                writer.u16(PROTOCOL, protocol.number());
                writer.address(ADDR, address.ip());
                writer.be16(PORT, address.port());
            }
            Self::Mark { mark, .. } => writer.u32(FWMARK, mark),
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

/// Which part of a client's address counts for persistence (`IPVS_SVC_ATTR_NETMASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Netmask {
    /// The bits of an IPv4 address that count.
    V4(Ipv4Addr),
    /// How many bits of an IPv6 address count; the kernel takes 1 to 128.
    V6(u32),
}

impl Netmask {
    /// The mask of one host.
    pub fn host(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }

    /// The mask in network order for IPv4, the prefix length in host order for IPv6.
    fn bytes(self) -> [u8; 4] {
        match self {
            Self::V4(mask) => mask.octets(),
            Self::V6(prefix) => prefix.to_ne_bytes(),
        }
    }

    fn from_bytes(bytes: [u8; 4], family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::from(bytes)),
            Family::V6 => Self::V6(u32::from_ne_bytes(bytes)),
        }
    }
}

impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(mask) => write!(f, "{mask}"),
            Self::V6(prefix) => write!(f, "{prefix}"),
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
    /// How it picks a destination.
    pub scheduler: Scheduler,
    /// Its flags. [`ServiceFlags::HASHED`] is the kernel's and is not written.
    pub flags: ServiceFlags,
    /// Its persistence.
    pub persistence: Persistence,
    /// The persistence engine's name, such as `sip`.
    pub persistence_engine: Option<String>,
    /// What the kernel said beyond that. It is written back: who changes a service that was read
    /// keeps it, and so does not reset what only a newer kernel knows.
    pub unknown: Box<[UnknownAttribute]>,
}

impl ServiceSpec {
    /// A service without flags or persistence.
    pub fn new(key: ServiceKey, scheduler: impl Into<Scheduler>) -> Self {
        Self {
            key,
            scheduler: scheduler.into(),
            flags: ServiceFlags::NONE,
            persistence: Persistence::none(key.family()),
            persistence_engine: None,
            unknown: Box::default(),
        }
    }

    /// The service with these flags as well.
    #[must_use]
    pub fn with_flags(mut self, flags: ServiceFlags) -> Self {
        self.flags = self.flags | flags;
        self
    }

    /// The service, persistent: clients that the mask makes equal stick to their destination
    /// until they were silent for `timeout` seconds.
    #[must_use]
    pub fn persistent(mut self, timeout: u32, netmask: Netmask) -> Self {
        self.flags = self.flags | ServiceFlags::PERSISTENT;
        self.persistence = Persistence { timeout, netmask };
        self
    }

    /// The names that ipvsadm has for the flags beyond persistence: those of the scheduler, and
    /// `ops`, one packet each. The scheduler's flags are named where the scheduler has them.
    pub fn scheduler_flags(&self) -> Vec<&'static str> {
        let names = match self.scheduler {
            Scheduler::Mh => ["mh-fallback", "mh-port"],
            Scheduler::Sh => ["sh-fallback", "sh-port"],
            _ => ["flag-1", "flag-2"],
        };
        let flags = [ServiceFlags::SCHED1, ServiceFlags::SCHED2];
        let named = flags.into_iter().zip(names);
        named
            .chain([
                (ServiceFlags::SCHED3, "flag-3"),
                (ServiceFlags::ONE_PACKET, "ops"),
            ])
            .filter(|(flag, _)| self.flags.contains(*flag))
            .map(|(_, name)| name)
            .collect()
    }

    /// Writes all attributes of a service to add or set, in ipvsadm's order.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        self.key.write(writer);
        writer.string(SCHED_NAME, self.scheduler.name());
        if let Some(name) = &self.persistence_engine {
            writer.string(PE_NAME, name);
        }
        write_flags(self.flags, writer);
        writer.u32(TIMEOUT, self.persistence.timeout);
        writer.bytes(NETMASK, &self.persistence.netmask.bytes());
        for unknown in &self.unknown {
            writer.bytes(unknown.kind, &unknown.value);
        }
    }
}

/// `struct ip_vs_flags`: the flags, then the mask of those that are to change. All may change:
/// the kernel keeps its own flag whatever is written.
fn write_flags(flags: ServiceFlags, writer: &mut Writer<'_>) {
    let mut bytes = [0xff; 8];
    let flags = flags.without(ServiceFlags::HASHED);
    bytes[..4].copy_from_slice(&flags.bits().to_ne_bytes());
    writer.bytes(FLAGS, &bytes);
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
    scheduler: Option<Scheduler>,
    flags: Option<u32>,
    timeout: Option<u32>,
    netmask: Option<[u8; 4]>,
    persistence_engine: Option<String>,
    stats: Option<&'a [u8]>,
    stats64: Option<&'a [u8]>,
    unknown: Vec<UnknownAttribute>,
}

impl Service {
    /// Reads the inside of `IPVS_CMD_ATTR_SERVICE`.
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
            SCHED_NAME => {
                let name = attribute.string("IPVS_SVC_ATTR_SCHED_NAME")?;
                self.scheduler = Some(Scheduler::from(name));
            }
            FLAGS => self.flags = Some(flags(value)?),
            TIMEOUT => self.timeout = Some(attribute.u32("IPVS_SVC_ATTR_TIMEOUT")?),
            NETMASK => self.netmask = Some(netmask(value)?),
            PE_NAME => {
                self.persistence_engine = Some(attribute.string("IPVS_SVC_ATTR_PE_NAME")?);
            }
            STATS => self.stats = Some(value),
            STATS64 => self.stats64 = Some(value),
            _ => self.unknown.push(UnknownAttribute::new(attribute)),
        }
        Ok(())
    }

    fn put_together(self) -> Result<Service, DecodeError> {
        let family = required(self.family, "IPVS_SVC_ATTR_AF")?;
        let family = family_from_number(family, "IPVS_SVC_ATTR_AF")?;
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
        let flags = ServiceFlags::from_bits(required(self.flags, "IPVS_SVC_ATTR_FLAGS")?);
        let netmask = required(self.netmask, "IPVS_SVC_ATTR_NETMASK")?;
        Ok(Service {
            spec: ServiceSpec {
                key,
                scheduler: required(self.scheduler, "IPVS_SVC_ATTR_SCHED_NAME")?,
                flags: flags.without(ServiceFlags::HASHED),
                persistence: Persistence {
                    timeout: required(self.timeout, "IPVS_SVC_ATTR_TIMEOUT")?,
                    netmask: Netmask::from_bytes(netmask, family),
                },
                persistence_engine: self.persistence_engine,
                unknown: self.unknown.into(),
            },
            stats: Stats::parse_either(self.stats64, self.stats)?,
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
