//! Counters of a service or a destination.

use netlink_packet_core::{DecodeError, ErrorContext, parse_u32, parse_u64};

use crate::attribute;

const CONNS: u16 = 1;
const INPKTS: u16 = 2;
const OUTPKTS: u16 = 3;
const INBYTES: u16 = 4;
const OUTBYTES: u16 = 5;
const CPS: u16 = 6;
const INPPS: u16 = 7;
const OUTPPS: u16 = 8;
const INBPS: u16 = 9;
const OUTBPS: u16 = 10;

/// Counters since the object was made or zeroed, and the kernel's own estimate of their
/// rates (`struct ip_vs_kstats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients; only masquerading sees them.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients; only masquerading sees them.
    pub out_bytes: u64,
    /// Connections a second.
    pub connections_per_second: u64,
    /// Packets from clients a second.
    pub in_packets_per_second: u64,
    /// Packets to clients a second.
    pub out_packets_per_second: u64,
    /// Bytes from clients a second.
    pub in_bytes_per_second: u64,
    /// Bytes to clients a second.
    pub out_bytes_per_second: u64,
}

impl Stats {
    /// What the kernel's older interface says of them, which is what a [`DestinationEntry`] has:
    /// bytes whole, of all others the lower 32 bits. Who counted 2³² packets more counted bytes.
    ///
    /// [`DestinationEntry`]: crate::DestinationEntry
    #[must_use]
    pub fn narrow(self) -> Self {
        let low = |wide: u64| wide & u64::from(u32::MAX);
        Self {
            connections: low(self.connections),
            in_packets: low(self.in_packets),
            out_packets: low(self.out_packets),
            in_bytes: self.in_bytes,
            out_bytes: self.out_bytes,
            connections_per_second: low(self.connections_per_second),
            in_packets_per_second: low(self.in_packets_per_second),
            out_packets_per_second: low(self.out_packets_per_second),
            in_bytes_per_second: low(self.in_bytes_per_second),
            out_bytes_per_second: low(self.out_bytes_per_second),
        }
    }

    /// Reads the 64 bit counters, or where the kernel has none (before Linux 4.1) those of 32
    /// bits. It sends both, with the same numbers in them, so that one of them is enough.
    pub(crate) fn parse_either(
        wide: Option<&[u8]>,
        narrow: Option<&[u8]>,
    ) -> Result<Self, DecodeError> {
        wide.or(narrow)
            .map_or_else(|| Ok(Self::default()), Self::parse)
    }

    /// Reads the inside of `IPVS_*_ATTR_STATS` or `IPVS_*_ATTR_STATS64`: the same attributes,
    /// of 32 bits (bytes: 64) in the older and of 64 bits in the newer container.
    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut stats = Self::default();
        for attribute in attribute::read(bytes) {
            let attribute = attribute.context("statistics")?;
            let (field, name) = match attribute.kind {
                CONNS => (&mut stats.connections, "IPVS_STATS_ATTR_CONNS"),
                INPKTS => (&mut stats.in_packets, "IPVS_STATS_ATTR_INPKTS"),
                OUTPKTS => (&mut stats.out_packets, "IPVS_STATS_ATTR_OUTPKTS"),
                INBYTES => (&mut stats.in_bytes, "IPVS_STATS_ATTR_INBYTES"),
                OUTBYTES => (&mut stats.out_bytes, "IPVS_STATS_ATTR_OUTBYTES"),
                CPS => (&mut stats.connections_per_second, "IPVS_STATS_ATTR_CPS"),
                INPPS => (&mut stats.in_packets_per_second, "IPVS_STATS_ATTR_INPPS"),
                OUTPPS => (&mut stats.out_packets_per_second, "IPVS_STATS_ATTR_OUTPPS"),
                INBPS => (&mut stats.in_bytes_per_second, "IPVS_STATS_ATTR_INBPS"),
                OUTBPS => (&mut stats.out_bytes_per_second, "IPVS_STATS_ATTR_OUTBPS"),
                _ => continue,
            };
            let value = attribute.value();
            *field = match value.len() {
                4 => u64::from(parse_u32(value).context(name)?),
                _ => parse_u64(value).context(name)?,
            };
        }
        Ok(stats)
    }
}
