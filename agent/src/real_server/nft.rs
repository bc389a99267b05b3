//! The table that lowers the MSS in what this host sends from a VIP, over nfnetlink.
//!
//! A client's packets reach a TUN real server through a tunnel that has less room than the way
//! back, so the MSS that the kernel takes from the route back is too large for them. A rule on
//! what leaves the host changes it for the VIPs alone; `advmss` on the routes would do it for
//! everybody, and be lost with every route that is set anew. The kernel only ever lowers an MSS
//! (`nft_exthdr_tcp_set_eval`), so clients that ask for less get less.
//!
//! ```text
//! table ip isopath-real-server {
//!     chain mss {
//!         type filter hook output priority -150;
//!         ip saddr 10.99.0.1 tcp flags & (syn | rst) == syn tcp option maxseg size set 1440
//!     }
//! }
//! ```

use std::collections::BTreeMap;
use std::io;

use isopath_api::ids::Vip;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::error::RealServerError;
use super::netlink::{ACK, APPEND, Attributes, CREATE, Conversation, DUMP, find, message};

const TABLE: &str = "isopath-real-server";
const CHAIN: &str = "mss";

/// What `linux/netfilter/nfnetlink.h` and `nf_tables.h` call the messages.
mod kind {
    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    const NF_TABLES: u16 = 10 << 8;
    pub(super) const NEW_TABLE: u16 = NF_TABLES;
    pub(super) const DEL_TABLE: u16 = NF_TABLES | 2;
    pub(super) const NEW_CHAIN: u16 = NF_TABLES | 3;
    pub(super) const NEW_RULE: u16 = NF_TABLES | 6;
    pub(super) const GET_RULE: u16 = NF_TABLES | 7;
}

/// `NFPROTO_IPV4`.
const IPV4: [u8; 4] = [2, 0, 0, 0];

/// A batch is for one subsystem, whose number stands in network order.
const FOR_NF_TABLES: [u8; 4] = [0, 0, 0, 10];

/// `NFT_REG_1`.
const REGISTER: u32 = 1;

/// Reads the MSS that each VIP is given by our table; none where the kernel has no such table.
pub(super) fn read() -> Result<BTreeMap<Vip, u16>, RealServerError> {
    let conversation = match Conversation::open(NETLINK_NETFILTER) {
        Err(error) if lacks_nf_tables(&error) => return Ok(BTreeMap::new()),
        result => result.map_err(failed("open nfnetlink"))?,
    };
    // NFTA_RULE_TABLE
    let ours = Attributes::default().text(1, TABLE);
    let rules = match conversation.ask(&message(kind::GET_RULE, DUMP, IPV4, &ours)) {
        Err(error) if lacks_nf_tables(&error) => return Ok(BTreeMap::new()),
        result => result.map_err(failed("read the rules of nf_tables"))?,
    };
    Ok(rules.iter().filter_map(|rule| parse(rule)).collect())
}

/// Makes the table as it shall be, at once and as a whole; without VIPs it goes.
pub(super) fn write(vips: &BTreeMap<Vip, u16>) -> Result<(), RealServerError> {
    let what = || "the MSS of a tunnel".to_owned();
    let no_module = || RealServerError::NoModule {
        module: "nf_tables",
        what: what(),
    };
    let conversation = match Conversation::open(NETLINK_NETFILTER) {
        Err(error) if lacks_nf_tables(&error) => return Err(no_module()),
        result => result.map_err(failed("open nfnetlink"))?,
    };
    match conversation.ask(&batch(vips)) {
        Err(error) if lacks_nf_tables(&error) => Err(no_module()),
        result => result
            .map(drop)
            .map_err(failed("write the nf_tables table isopath-real-server")),
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> RealServerError {
    move |source| RealServerError::Netlink {
        what: what.to_owned(),
        source,
    }
}

/// Without the protocol there is no socket; without the subsystem its messages are unknown
/// (`nfnetlink_rcv_batch`, `nfnetlink_rcv_msg`).
fn lacks_nf_tables(error: &io::Error) -> bool {
    let unknown = [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|it| unknown.contains(&it))
}

/// The table is made so that it can be deleted, and deleted so that it can be made anew; all of
/// it takes effect together.
fn batch(vips: &BTreeMap<Vip, u16>) -> Vec<u8> {
    // NFTA_TABLE_NAME
    let table = Attributes::default().text(1, TABLE);
    let none = Attributes::default();
    let mut bytes = message(kind::BATCH_BEGIN, 0, FOR_NF_TABLES, &none);
    bytes.extend(message(kind::NEW_TABLE, CREATE, IPV4, &table));
    // The last message alone is acknowledged, an error is told of any.
    let last = if vips.is_empty() { ACK } else { 0 };
    bytes.extend(message(kind::DEL_TABLE, last, IPV4, &table));
    if !vips.is_empty() {
        bytes.extend(message(kind::NEW_TABLE, CREATE, IPV4, &table));
        bytes.extend(message(kind::NEW_CHAIN, CREATE, IPV4, &chain()));
    }
    for (index, (vip, mss)) in vips.iter().enumerate() {
        let last = if index + 1 == vips.len() { ACK } else { 0 };
        let flags = CREATE | APPEND | last;
        bytes.extend(message(kind::NEW_RULE, flags, IPV4, &rule(*vip, *mss)));
    }
    bytes.extend(message(kind::BATCH_END, 0, FOR_NF_TABLES, &none));
    bytes
}

fn chain() -> Attributes {
    // NFTA_HOOK_HOOKNUM: NF_INET_LOCAL_OUT; NFTA_HOOK_PRIORITY: NF_IP_PRI_MANGLE
    let hook = Attributes::default()
        .put(1, &3_u32.to_be_bytes())
        .put(2, &(-150_i32).to_be_bytes());
    // NFTA_CHAIN_TABLE, _NAME, _HOOK, _TYPE
    Attributes::default()
        .text(1, TABLE)
        .text(3, CHAIN)
        .nest(4, &hook)
        .text(7, "filter")
}

fn rule(vip: Vip, mss: u16) -> Attributes {
    /// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    /// IPPROTO_TCP.
    const TCP: u8 = 6;
    /// TCP's SYN and RST (RFC 9293 §3.1).
    const SYN: u8 = 2;
    const RST: u8 = 4;
    let expressions = [
        payload(NETWORK, 12, 4),
        equals(&vip.0.octets()),
        protocol(),
        equals(&[TCP]),
        payload(TRANSPORT, 13, 1),
        masked(SYN | RST),
        equals(&[SYN]),
        immediate(&mss.to_be_bytes()),
        set_mss(),
    ];
    let mut list = Attributes::default();
    for expression in expressions {
        // NFTA_LIST_ELEM
        list = list.nest(1, &expression);
    }
    // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS, _USERDATA
    Attributes::default()
        .text(1, TABLE)
        .text(2, CHAIN)
        .nest(4, &list)
        .put(7, &comment(vip, mss))
}

/// An expression by its name, with its attributes.
fn expression(name: &str, data: &Attributes) -> Attributes {
    // NFTA_EXPR_NAME, NFTA_EXPR_DATA
    Attributes::default().text(1, name).nest(2, data)
}

fn be(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
    let data = Attributes::default()
        .put(1, &be(REGISTER))
        .put(2, &be(base))
        .put(3, &be(offset))
        .put(4, &be(length));
    expression("payload", &data)
}

fn protocol() -> Attributes {
    // NFTA_META_DREG, NFTA_META_KEY: NFT_META_L4PROTO
    let data = Attributes::default().put(1, &be(REGISTER)).put(2, &be(16));
    expression("meta", &data)
}

/// A value; NFTA_DATA_VALUE.
fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().put(1, bytes)
}

fn equals(bytes: &[u8]) -> Attributes {
    // NFTA_CMP_SREG, _OP: NFT_CMP_EQ, _DATA
    let data = Attributes::default()
        .put(1, &be(REGISTER))
        .put(2, &be(0))
        .nest(3, &value(bytes));
    expression("cmp", &data)
}

fn masked(mask: u8) -> Attributes {
    // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
    let data = Attributes::default()
        .put(1, &be(REGISTER))
        .put(2, &be(REGISTER))
        .put(3, &be(1))
        .nest(4, &value(&[mask]))
        .nest(5, &value(&[0]));
    expression("bitwise", &data)
}

fn immediate(bytes: &[u8]) -> Attributes {
    // NFTA_IMMEDIATE_DREG, _DATA
    let data = Attributes::default()
        .put(1, &be(REGISTER))
        .nest(2, &value(bytes));
    expression("immediate", &data)
}

/// Writes the register into the maximum segment size option (RFC 9293 §3.2), where there is one.
fn set_mss() -> Attributes {
    // NFTA_EXTHDR_TYPE, _OFFSET, _LEN, _OP: NFT_EXTHDR_OP_TCPOPT, _SREG
    let data = Attributes::default()
        .put(2, &[2])
        .put(3, &be(2))
        .put(4, &be(2))
        .put(6, &be(1))
        .put(7, &be(REGISTER));
    expression("exthdr", &data)
}

/// What a rule is for, as `nft list ruleset` shows it, and as it is known by when it is read:
/// a comment (`NFTNL_UDATA_RULE_COMMENT`) with its length and a zero at its end.
fn comment(vip: Vip, mss: u16) -> Vec<u8> {
    let text = format!("{vip} mss {mss}\0");
    let length = u8::try_from(text.len()).expect("an address and a number");
    let mut bytes = vec![0, length];
    bytes.extend(text.as_bytes());
    bytes
}

/// The VIP and the MSS of a rule of our table.
fn parse(rule: &[u8]) -> Option<(Vip, u16)> {
    let table = find(rule, 1)?.strip_suffix(&[0])?;
    if table != TABLE.as_bytes() {
        return None;
    }
    let text = find(rule, 7)?.get(2..)?.strip_suffix(&[0])?;
    let (vip, mss) = std::str::from_utf8(text).ok()?.split_once(" mss ")?;
    Some((vip.parse().ok()?, mss.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_known_by_its_comment() {
        let vip = "10.99.0.1".parse().unwrap();
        let bytes = message(0, 0, IPV4, &rule(vip, 1440));
        assert_eq!(parse(&bytes[20..]), Some((vip, 1440)));
        let other = Attributes::default().text(1, "filter");
        assert_eq!(parse(&message(0, 0, IPV4, &other)[20..]), None);
    }
}
