//! Reading and writing netlink attributes, with errors that name the attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NLA_F_NESTED, NlaBuffer, NlasIterator,
    parse_string, parse_u16, parse_u16_be, parse_u32,
};

use crate::service::Family;

/// The attributes of a message or of a nested attribute, in the order written.
pub(crate) type Attributes = Vec<DefaultNla>;

pub(crate) fn u8(kind: u16, value: u8) -> DefaultNla {
    DefaultNla::new(kind, vec![value])
}

pub(crate) fn u16(kind: u16, value: u16) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

pub(crate) fn be16(kind: u16, value: u16) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

pub(crate) fn u32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

pub(crate) fn string(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

/// An address as `union nf_inet_addr`: always 16 bytes, an IPv4 address in the first four.
pub(crate) fn address(kind: u16, address: IpAddr) -> DefaultNla {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    DefaultNla::new(kind, bytes.to_vec())
}

pub(crate) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, to_bytes(attributes))
}

pub(crate) fn to_bytes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// One attribute read.
pub(crate) struct Read<'a> {
    pub(crate) kind: u16,
    value: &'a [u8],
}

impl<'a> Read<'a> {
    pub(crate) fn value(&self) -> &'a [u8] {
        self.value
    }

    pub(crate) fn u16(&self, name: &str) -> Result<u16, DecodeError> {
        parse_u16(self.value).context(name)
    }

    pub(crate) fn be16(&self, name: &str) -> Result<u16, DecodeError> {
        parse_u16_be(self.value).context(name)
    }

    pub(crate) fn u32(&self, name: &str) -> Result<u32, DecodeError> {
        parse_u32(self.value).context(name)
    }

    pub(crate) fn u8(&self, name: &str) -> Result<u8, DecodeError> {
        netlink_packet_core::parse_u8(self.value).context(name)
    }

    pub(crate) fn string(&self, name: &str) -> Result<String, DecodeError> {
        parse_string(self.value).context(name)
    }
}

/// Reads the attributes in `bytes` one after another.
pub(crate) fn read(bytes: &[u8]) -> impl Iterator<Item = Result<Read<'_>, DecodeError>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        // The value is taken from the buffer itself: `NlaBuffer::value` borrows from the view.
        let length = usize::from(attribute.length());
        let kind = attribute.kind();
        let value = &attribute.into_inner()[netlink_packet_core::NLA_HEADER_SIZE..length];
        Ok(Read { kind, value })
    })
}

/// An address that was written as `union nf_inet_addr`. Its family stands in another
/// attribute; only as many bytes as that family has are looked at.
pub(crate) fn ip_address(bytes: &[u8], family: Family, name: &str) -> Result<IpAddr, DecodeError> {
    let too_short = || DecodeError::invalid_ip_address(bytes.len());
    match family {
        Family::V4 => {
            let octets = bytes
                .first_chunk::<4>()
                .ok_or_else(too_short)
                .context(name)?;
            Ok(Ipv4Addr::from(*octets).into())
        }
        Family::V6 => {
            let octets = bytes
                .first_chunk::<16>()
                .ok_or_else(too_short)
                .context(name)?;
            Ok(Ipv6Addr::from(*octets).into())
        }
    }
}

/// The parts of a socket address, each in an attribute of its own.
pub(crate) fn socket_address(
    bytes: &[u8],
    port: u16,
    family: Family,
    name: &str,
) -> Result<SocketAddr, DecodeError> {
    Ok(SocketAddr::new(ip_address(bytes, family, name)?, port))
}

/// The value of an attribute that must be there.
pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::from(format!("{name} is missing")))
}
