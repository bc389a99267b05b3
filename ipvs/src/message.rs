//! The messages of the family `IPVS`: a command and attributes.

use netlink_packet_core::{DecodeError, ErrorContext};
use netlink_packet_generic::GenlHeader;
use netlink_packet_generic::constants::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, CTRL_CMD_NEWFAMILY,
    GENL_HDRLEN, GENL_ID_CTRL,
};

use crate::attribute::{self, Writer, required};
use crate::change::Change;
use crate::destination::{self, Destination};
use crate::service::{Service, ServiceKey};
use crate::socket::Requests;
use isopath_mh::Family;

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
    Zero = 16,
    Flush = 17,
}

impl Command {
    fn header(self) -> GenlHeader {
        GenlHeader {
            cmd: self as u8,
            version: FAMILY_VERSION,
        }
    }
}

/// The question which number the family `IPVS` has.
pub(crate) fn get_family() -> Requests {
    let header = GenlHeader {
        cmd: CTRL_CMD_GETFAMILY,
        version: 1,
    };
    Requests::one(GENL_ID_CTRL, header, |writer| {
        writer.string(CTRL_ATTR_FAMILY_NAME, FAMILY_NAME);
    })
}

/// A request without attributes, to the family with that number.
pub(crate) fn request(family: u16, command: Command) -> Requests {
    Requests::one(family, command.header(), |_| {})
}

/// A request that concerns a service.
pub(crate) fn service_request(family: u16, command: Command, service: &ServiceKey) -> Requests {
    let mut requests = Requests::default();
    push_service_request(&mut requests, family, command, service);
    requests
}

pub(crate) fn push_service_request(
    requests: &mut Requests,
    family: u16,
    command: Command,
    service: &ServiceKey,
) {
    requests.push(family, command.header(), |writer| {
        write_key(service, writer)
    });
}

/// The request to set the timeouts.
pub(crate) fn set_timeouts(family: u16, timeouts: Timeouts) -> Requests {
    Requests::one(family, Command::SetConfig.header(), |writer| {
        writer.u32(TIMEOUT_TCP, timeouts.tcp);
        writer.u32(TIMEOUT_TCP_FIN, timeouts.tcp_fin);
        writer.u32(TIMEOUT_UDP, timeouts.udp);
    })
}

/// The request to make a change.
pub(crate) fn push_change(requests: &mut Requests, family: u16, change: &Change) {
    let command = match change {
        Change::AddService(_) => Command::NewService,
        Change::SetService(_) => Command::SetService,
        Change::DeleteService(_) => Command::DelService,
        Change::AddDestination(..) => Command::NewDest,
        Change::SetDestination(..) => Command::SetDest,
        Change::DeleteDestination(..) => Command::DelDest,
        Change::ZeroService(_) => Command::Zero,
    };
    requests.push(family, command.header(), |writer| match change {
        Change::AddService(spec) | Change::SetService(spec) => {
            writer.nested(SERVICE, |writer| spec.write(writer));
        }
        Change::DeleteService(key) | Change::ZeroService(key) => write_key(key, writer),
        Change::AddDestination(key, spec) | Change::SetDestination(key, spec) => {
            write_key(key, writer);
            writer.nested(DEST, |writer| spec.write(writer));
        }
        Change::DeleteDestination(key, address) => {
            write_key(key, writer);
            writer.nested(DEST, |writer| destination::write_identity(*address, writer));
        }
    });
}

fn write_key(service: &ServiceKey, writer: &mut Writer<'_>) {
    writer.nested(SERVICE, |writer| service.write(writer));
}

/// The attributes of a message, when its command is the expected one.
fn attributes(message: &[u8], command: u8) -> Result<&[u8], DecodeError> {
    let header = GenlHeader::parse(message)?;
    if header.cmd != command {
        let found = header.cmd;
        return Err(format!("expected command {command}, found {found}").into());
    }
    Ok(&message[GENL_HDRLEN..])
}

/// Reads the answer to [`get_family`].
pub(crate) fn family_number(message: &[u8]) -> Result<u16, DecodeError> {
    for attribute in attribute::read(attributes(message, CTRL_CMD_NEWFAMILY)?) {
        let attribute = attribute.context("generic netlink family")?;
        if attribute.kind == CTRL_ATTR_FAMILY_ID {
            return attribute.u16("CTRL_ATTR_FAMILY_ID");
        }
    }
    required(None, "CTRL_ATTR_FAMILY_ID")
}

pub(crate) fn service(message: &[u8]) -> Result<Service, DecodeError> {
    let attributes = attributes(message, Command::NewService as u8)?;
    let service = first(attributes, SERVICE)?;
    Service::parse(required(service, "IPVS_CMD_ATTR_SERVICE")?)
}

pub(crate) fn destination(message: &[u8], family: Family) -> Result<Destination, DecodeError> {
    let attributes = attributes(message, Command::NewDest as u8)?;
    let destination = first(attributes, DEST)?;
    Destination::parse(required(destination, "IPVS_CMD_ATTR_DEST")?, family)
}

pub(crate) fn info(message: &[u8]) -> Result<Info, DecodeError> {
    let mut version = None;
    let mut connection_table_size = None;
    for attribute in attribute::read(attributes(message, Command::SetInfo as u8)?) {
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

pub(crate) fn timeouts(message: &[u8]) -> Result<Timeouts, DecodeError> {
    let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
    for attribute in attribute::read(attributes(message, Command::SetConfig as u8)?) {
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

#[cfg(test)]
mod tests;
