//! UDP ports on which GUE packets are taken, over generic netlink (`linux/fou.h`). What comes
//! out of them is IPIP, which `tunl0` hands in.

use std::collections::BTreeSet;
use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::error::RealServerError;
use super::netlink::{ACK, Attributes, Conversation, DUMP, find, message, u16_at};

/// The family that tells the others' numbers (`GENL_ID_CTRL`), its question and the attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `FOU_CMD_*`, each of version 1.
const ADD: [u8; 4] = [1, 1, 0, 0];
const DEL: [u8; 4] = [2, 1, 0, 0];
const GET: [u8; 4] = [3, 1, 0, 0];

/// `FOU_ATTR_*`.
const PORT: u16 = 1;
const ADDRESS_FAMILY: u16 = 2;
const TYPE: u16 = 4;

/// `AF_INET`.
const INET: u8 = 2;

/// `FOU_ENCAP_GUE`.
const GUE: u8 = 2;

/// The ports; none where the kernel has no fou.
pub(super) fn read() -> Result<BTreeSet<u16>, RealServerError> {
    let conversation = open()?;
    let Some(family) = family(&conversation)? else {
        return Ok(BTreeSet::new());
    };
    let question = message(family, DUMP, GET, &Attributes::default());
    let ports = conversation
        .ask(&question)
        .map_err(failed("read the ports of fou".to_owned()))?;
    Ok(ports.iter().filter_map(|port| parse(port)).collect())
}

/// Takes GUE packets on a port.
pub(super) fn add(port: u16) -> Result<(), RealServerError> {
    change(ADD, port, "take GUE packets on")
}

/// Takes no more of them.
pub(super) fn delete(port: u16) -> Result<(), RealServerError> {
    change(DEL, port, "close")
}

fn change(command: [u8; 4], port: u16, what: &str) -> Result<(), RealServerError> {
    let conversation = open()?;
    let family = family(&conversation)?.ok_or_else(|| RealServerError::NoModule {
        module: "fou",
        what: "a tunnel of type gue".to_owned(),
    })?;
    let attributes = Attributes::default()
        .put(PORT, &port.to_be_bytes())
        .put(ADDRESS_FAMILY, &[INET])
        .put(TYPE, &[GUE]);
    conversation
        .ask(&message(family, ACK, command, &attributes))
        .map(drop)
        .map_err(failed(format!("{what} UDP port {port}")))
}

fn open() -> Result<Conversation, RealServerError> {
    Conversation::open(NETLINK_GENERIC).map_err(failed("open generic netlink".to_owned()))
}

/// The number of the family; nothing where the kernel has none.
fn family(conversation: &Conversation) -> Result<Option<u16>, RealServerError> {
    let name = Attributes::default().text(FAMILY_NAME, "fou");
    // The acknowledgement ends the exchange.
    match conversation.ask(&message(CONTROL, ACK, GET_FAMILY, &name)) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
        result => {
            let answers = result.map_err(failed("look up fou".to_owned()))?;
            let id = |answer: &Vec<u8>| u16_at(find(answer, FAMILY_ID)?, 0);
            Ok(answers.iter().find_map(id))
        }
    }
}

fn failed(what: String) -> impl FnOnce(io::Error) -> RealServerError {
    move |source| RealServerError::Netlink { what, source }
}

fn parse(answer: &[u8]) -> Option<u16> {
    let port = find(answer, PORT)?;
    (find(answer, TYPE)? == [GUE]).then_some(())?;
    Some(u16::from_be_bytes([*port.first()?, *port.get(1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_port_for_gue_is_one() {
        let of = |kind: u8| {
            let port = Attributes::default().put(PORT, &6080_u16.to_be_bytes());
            message(0, 0, GET, &port.put(TYPE, &[kind]))
        };
        assert_eq!(parse(&of(GUE)[20..]), Some(6080));
        assert_eq!(parse(&of(1)[20..]), None, "plain fou has no header of GUE");
    }
}
