//! Reading and writing netlink attributes, with errors that name the attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{
    DecodeError, ErrorContext, NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE, NLA_TYPE_MASK,
    NlaBuffer, parse_string, parse_u16, parse_u16_be, parse_u32,
};

use isopath_mh::Family;

/// Writes attributes one after another at the end of a buffer. A batch has thousands of
/// messages, so that nothing is put together elsewhere first.
pub(crate) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.put(kind, |bytes| bytes.extend_from_slice(value));
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.put(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        });
    }

    /// An address as `union nf_inet_addr`: always 16 bytes, an IPv4 address in the first four.
    pub(crate) fn address(&mut self, kind: u16, address: IpAddr) {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        self.bytes(kind, &bytes);
    }

    pub(crate) fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Writer<'_>)) {
        self.put(kind | NLA_F_NESTED, |bytes| inside(&mut Writer { bytes }));
    }

    /// An attribute's header, its value, and what fills it up to the next one's boundary.
    fn put(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; NLA_HEADER_SIZE]);
        value(self.bytes);
        // Only what somebody calls a scheduler can be too long. The message's own length stays
        // right, and the kernel refuses the name.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        let end = self.bytes.len().next_multiple_of(NLA_ALIGNTO);
        self.bytes.resize(end, 0);
    }
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

/// Reads the attributes in `bytes` one after another. A table has half a million of them, for
/// which [`netlink_packet_core::NlasIterator`] takes twice as long.
pub(crate) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Result<Read<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((attribute, rest)) = split(bytes) else {
            // Its checks say what is wrong; the end is the end whatever they say.
            let error = NlaBuffer::new_checked(bytes).err();
            bytes = &[];
            return error.map(Err);
        };
        bytes = rest;
        Some(Ok(attribute))
    })
}

/// The first attribute and what comes after it; nothing where it is not whole.
fn split(bytes: &[u8]) -> Option<(Read<'_>, &[u8])> {
    let ([length_low, length_high, kind_low, kind_high], _) = bytes.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_ne_bytes([*length_low, *length_high]));
    let kind = u16::from_ne_bytes([*kind_low, *kind_high]) & NLA_TYPE_MASK;
    let value = bytes.get(NLA_HEADER_SIZE..length)?;
    // The last one need not be filled up.
    let rest = bytes.get(length.next_multiple_of(NLA_ALIGNTO)..);
    Some((Read { kind, value }, rest.unwrap_or_default()))
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

/// An attribute that this library does not know, as a newer kernel sends it. It is kept with
/// what it was read from and written with it, after the attributes that are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Its number in the container that it was read from.
    pub kind: u16,
    /// Its value.
    pub value: Box<[u8]>,
}

impl UnknownAttribute {
    pub(crate) fn new(attribute: &Read<'_>) -> Self {
        Self {
            kind: attribute.kind,
            value: attribute.value.into(),
        }
    }
}
