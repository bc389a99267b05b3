//! The messages of the family `IPVS`: a command and attributes.

use std::net::SocketAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NetlinkDeserializable, NetlinkHeader,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::GenlHeader;
use netlink_packet_generic::constants::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, CTRL_CMD_NEWFAMILY,
    GENL_HDRLEN, GENL_ID_CTRL,
};

use crate::attribute::{self, Attributes, required};
use crate::destination::{self, Destination, DestinationSpec};
use crate::service::{Family, Service, ServiceKey, ServiceSpec};

const FAMILY_NAME: &str = "IPVS";
const FAMILY_VERSION: u8 = 1;

// IPVS_CMD_ATTR_*
const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

// IPVS_INFO_ATTR_*
const INFO_VERSION: u16 = 1;
const INFO_CONN_TAB_SIZE: u16 = 2;

/// `IPVS_CMD_*`, those that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    NewService = 1,
    SetService = 2,
    DelService = 3,
    GetService = 4,
    NewDest = 5,
    SetDest = 6,
    DelDest = 7,
    GetDest = 8,
    SetConfig = 12,
    GetConfig = 13,
    SetInfo = 14,
    GetInfo = 15,
}

/// A generic netlink message whose inside is not looked at yet: what fails to decode must
/// reach the one who asked, not be dropped by the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number of the generic netlink family.
    family: u16,
    /// The generic netlink header and the attributes.
    bytes: Vec<u8>,
}

impl Message {
    fn new(family: u16, header: GenlHeader, attributes: &[DefaultNla]) -> Self {
        let mut bytes = vec![0; GENL_HDRLEN];
        header.emit(&mut bytes);
        bytes.extend(attribute::to_bytes(attributes));
        Self { family, bytes }
    }

    /// The question which number the family `IPVS` has.
    pub(crate) fn get_family() -> Self {
        let header = GenlHeader {
            cmd: CTRL_CMD_GETFAMILY,
            version: 1,
        };
        let name = attribute::string(CTRL_ATTR_FAMILY_NAME, FAMILY_NAME);
        Self::new(GENL_ID_CTRL, header, &[name])
    }

    pub(crate) fn request(family: u16, command: Command, attributes: &[DefaultNla]) -> Self {
        let header = GenlHeader {
            cmd: command as u8,
            version: FAMILY_VERSION,
        };
        Self::new(family, header, attributes)
    }

    /// The attributes, when the command is the expected one.
    fn attributes(&self, command: u8) -> Result<&[u8], DecodeError> {
        let header = GenlHeader::parse(&self.bytes)?;
        if header.cmd != command {
            let found = header.cmd;
            return Err(format!("expected command {command}, found {found}").into());
        }
        Ok(&self.bytes[GENL_HDRLEN..])
    }

    /// Reads the answer to [`Self::get_family`].
    pub(crate) fn family_number(&self) -> Result<u16, DecodeError> {
        for attribute in attribute::read(self.attributes(CTRL_CMD_NEWFAMILY)?) {
            let attribute = attribute.context("generic netlink family")?;
            if attribute.kind == CTRL_ATTR_FAMILY_ID {
                return attribute.u16("CTRL_ATTR_FAMILY_ID");
            }
        }
        required(None, "CTRL_ATTR_FAMILY_ID")
    }

    pub(crate) fn service(&self) -> Result<Service, DecodeError> {
        let attributes = self.attributes(Command::NewService as u8)?;
        let service = first(attributes, SERVICE)?;
        Service::parse(required(service, "IPVS_CMD_ATTR_SERVICE")?)
    }

    pub(crate) fn destination(&self, family: Family) -> Result<Destination, DecodeError> {
        let attributes = self.attributes(Command::NewDest as u8)?;
        let destination = first(attributes, DEST)?;
        Destination::parse(required(destination, "IPVS_CMD_ATTR_DEST")?, family)
    }

    pub(crate) fn info(&self) -> Result<Info, DecodeError> {
        let mut version = None;
        let mut connection_table_size = None;
        for attribute in attribute::read(self.attributes(Command::SetInfo as u8)?) {
            let attribute = attribute.context("information")?;
            match attribute.kind {
                INFO_VERSION => version = Some(attribute.u32("IPVS_INFO_ATTR_VERSION")?),
                INFO_CONN_TAB_SIZE => {
                    let size = attribute.u32("IPVS_INFO_ATTR_CONN_TAB_SIZE")?;
                    connection_table_size = Some(size);
                }
                _ => {}
            }
        }
        let [_, major, minor, patch] = required(version, "IPVS_INFO_ATTR_VERSION")?.to_be_bytes();
        let size = required(connection_table_size, "IPVS_INFO_ATTR_CONN_TAB_SIZE")?;
        Ok(Info {
            version: (major, minor, patch),
            connection_table_size: size,
        })
    }

    pub(crate) fn timeouts(&self) -> Result<Timeouts, DecodeError> {
        let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
        for attribute in attribute::read(self.attributes(Command::SetConfig as u8)?) {
            let attribute = attribute.context("timeouts")?;
            match attribute.kind {
                TIMEOUT_TCP => tcp = Some(attribute.u32("IPVS_CMD_ATTR_TIMEOUT_TCP")?),
                TIMEOUT_TCP_FIN => {
                    tcp_fin = Some(attribute.u32("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN")?);
                }
                TIMEOUT_UDP => udp = Some(attribute.u32("IPVS_CMD_ATTR_TIMEOUT_UDP")?),
                _ => {}
            }
        }
        Ok(Timeouts {
            tcp: required(tcp, "IPVS_CMD_ATTR_TIMEOUT_TCP")?,
            tcp_fin: required(tcp_fin, "IPVS_CMD_ATTR_TIMEOUT_TCP_FIN")?,
            udp: required(udp, "IPVS_CMD_ATTR_TIMEOUT_UDP")?,
        })
    }
}

/// The value of the first attribute of one kind.
fn first(bytes: &[u8], kind: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in attribute::read(bytes) {
        let attribute = attribute.context("message")?;
        if attribute.kind == kind {
            return Ok(Some(attribute.value()));
        }
    }
    Ok(None)
}

/// What a command acts on, as its attributes.
pub(crate) fn service_key(key: &ServiceKey) -> Attributes {
    vec![attribute::nested(SERVICE, &key.attributes())]
}

pub(crate) fn service_spec(spec: &ServiceSpec) -> Attributes {
    vec![attribute::nested(SERVICE, &spec.attributes())]
}

pub(crate) fn destination_key(service: &ServiceKey, address: SocketAddr) -> Attributes {
    let mut attributes = service_key(service);
    attributes.push(attribute::nested(DEST, &destination::identity(address)));
    attributes
}

pub(crate) fn destination_spec(service: &ServiceKey, spec: &DestinationSpec) -> Attributes {
    let mut attributes = service_key(service);
    attributes.push(attribute::nested(DEST, &spec.attributes()));
    attributes
}

pub(crate) fn timeouts(timeouts: Timeouts) -> Attributes {
    vec![
        attribute::u32(TIMEOUT_TCP, timeouts.tcp),
        attribute::u32(TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        attribute::u32(TIMEOUT_UDP, timeouts.udp),
    ]
}

/// What IPVS says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its version.
    pub version: (u8, u8, u8),
    /// The number of hash buckets of its connection table.
    pub connection_table_size: u32,
}

/// How long a silent connection is kept, in seconds; one setting for a network namespace.
/// When written, 0 leaves a value as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp: u32,
    /// A TCP connection after a FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self {
            family: header.message_type,
            bytes: payload.to_vec(),
        })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests;
