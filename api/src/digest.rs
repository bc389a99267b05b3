//! What decides where a client lands, in one short text.
//!
//! Directors share no connections: a client whose packets come to another director than before
//! keeps its real server only if that director would pick the same one. Everything that has a
//! say in it is a [`Placement`]. The controller makes one of what is declared, an agent one of
//! what its kernel really has, and their digests are the same where every client lands at the
//! same real server. The health of real servers is no part of it: it changes the weight in
//! force, never the place in the table.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::declare::{
    Forwarding, Lvs, Netmask, Persistence, Profile, RealServerSpec, Scheduler, SchedulerFlag,
    ServiceSpec, Timeouts, Tunnel, TunnelChecksum,
};
use crate::ids::{Packets, ParseIdError, Protocol, ServiceId, serde_as_text};

/// The version of what a digest is made of. It begins every digest, and digests of different
/// versions say nothing about each other, so that a director of another release is not taken
/// for one that differs. It rises with any change of [`Placement::digest`] or of [`sysctls`].
const VERSION: u8 = 3;

/// The bytes of the hash that a digest keeps. Nobody forges them: 64 bits tell apart what differs
/// by accident.
const KEPT: usize = 8;

/// A digest of everything that decides which real server of a service a client gets, as
/// hexadecimal digits: two of the version, then those of a hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceDigest(String);

impl ServiceDigest {
    /// Whether the two are of one version, so that being different means something.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.0.get(..2) == other.0.get(..2)
    }
}

impl fmt::Display for ServiceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ServiceDigest {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        // Later versions may keep more of the hash.
        if (4..=64).contains(&text.len()) && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError {
                expected: "a digest of 4 to 64 lower-case hexadecimal digits",
                found: text.to_owned(),
            })
        }
    }
}

serde_as_text!(ServiceDigest);

/// Everything that decides which real server of a service a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The service.
    pub service: ServiceId,
    /// The kernel's name of the scheduler.
    pub scheduler: Cow<'static, str>,
    /// Whether the order of the list decides: see [`goes_by_order`].
    pub by_order: bool,
    /// Its flags.
    pub flags: BTreeSet<SchedulerFlag>,
    /// How clients stay with their real servers.
    pub persistence: Option<Persistence>,
    /// The real servers in the order of the kernel's list, those on their way out aside.
    pub real_servers: Vec<Slot>,
    /// How long connections are kept.
    pub timeouts: Timeouts,
    /// The values of [`sysctls`]; nothing for one that the kernel does not have.
    pub sysctls: BTreeMap<&'static str, Option<String>>,
}

/// A real server in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its address and port.
    pub address: SocketAddr,
    /// The weight that the scheduler's table has it with: see [`table_weight`].
    pub weight: u32,
    /// How packets reach it: see [`via`].
    pub via: Cow<'static, str>,
    /// The connections at which it takes no new ones; 0 for no limit.
    pub upper_threshold: u32,
    /// The connections below which it takes new ones again.
    pub lower_threshold: u32,
}

/// The sysctls that have a say where connections may come from another director, named as under
/// `/proc/sys`, with their values.
const SHARED: &[(&str, &str)] = &[
    ("net/ipv4/vs/conn_reuse_mode", "3"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/vs/schedule_icmp", "1"),
    ("net/ipv4/vs/sloppy_tcp", "1"),
];

/// What `sloppy_tcp` is for TCP: without it a director drops the associations that began at
/// another one.
const SHARED_SCTP: &[(&str, &str)] = &[("net/ipv4/vs/sloppy_sctp", "1")];

/// The sysctls that have a say in where clients land whose packets are these, named as under
/// `/proc/sys`, with their values.
///
/// One that decides only about SCTP is not asked of other services: a director must not be taken
/// from them for it.
pub fn sysctls(
    profile: Profile,
    packets: Packets,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (shared, sctp) = match profile {
        Profile::Stateless if may_be_sctp(packets) => (SHARED, SHARED_SCTP),
        Profile::Stateless => (SHARED, &[][..]),
        Profile::Stateful => (&[][..], &[][..]),
    };
    shared.iter().chain(sctp).copied()
}

/// Whether a service gets SCTP, or may get it: the firewall marks what it likes.
pub fn may_be_sctp(packets: Packets) -> bool {
    match packets {
        Packets::To { protocol, .. } => match protocol {
            Protocol::Sctp => true,
            Protocol::Tcp | Protocol::Udp => false,
        },
        Packets::Marked(_) => true,
    }
}

/// Whether where a client lands depends on the order of the kernel's list, with everything else
/// the same. `mh`, `sh` and `dh` fill their tables along it (`ip_vs_mh_populate`,
/// `ip_vs_sh_reassign`, `ip_vs_dh_assign`), `fo` and `ovf` take the first of the heaviest. The
/// others go by the connections that a director itself has, or round and round.
pub fn goes_by_order(scheduler: Scheduler) -> bool {
    match scheduler {
        Scheduler::Mh | Scheduler::Sh | Scheduler::Dh | Scheduler::Fo | Scheduler::Ovf => true,
        Scheduler::Rr
        | Scheduler::Wrr
        | Scheduler::Lc
        | Scheduler::Wlc
        | Scheduler::Lblc
        | Scheduler::Lblcr
        | Scheduler::Sed
        | Scheduler::Nq => false,
    }
}

/// The weight that the scheduler's table shall have a real server with.
///
/// It is the declared one, but for a real server that is declared with 0 under `mh`. The kernel
/// builds that table from the last weight above 0 (`ip_vs_mh_populate`), so a director that had
/// seen the weight fall to 0 would keep its slots, and one that started later would share them
/// out. So both give it the least weight that the service declares above 0, which is what it had
/// where all are equal.
pub fn table_weight(service: &ServiceSpec, server: &RealServerSpec) -> u16 {
    if server.weight > 0 || service.scheduler != Scheduler::Mh {
        return server.weight;
    }
    let weights = service.real_server.iter().map(|server| server.weight);
    weights.filter(|weight| *weight > 0).min().unwrap_or(1)
}

/// How packets reach a real server, in one word.
pub fn via(forwarding: Forwarding, tunnel: Option<Tunnel>) -> Cow<'static, str> {
    match (forwarding, tunnel.unwrap_or_default()) {
        (Forwarding::Dr | Forwarding::Nat, _) => Cow::Borrowed(forwarding.as_str()),
        (Forwarding::Tun, tunnel) if tunnel == Tunnel::default() => Cow::Borrowed("tun-ipip"),
        (Forwarding::Tun, tunnel) => {
            let Tunnel {
                kind,
                port,
                checksum,
            } = tunnel;
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let checksum = match checksum {
                TunnelChecksum::None => "",
                TunnelChecksum::Csum | TunnelChecksum::Remcsum => checksum.as_str(),
            };
            Cow::Owned(format!("tun-{kind}{port}+{checksum}"))
        }
    }
}

/// What the digest of each service must be.
pub fn expected(
    services: &[impl Borrow<ServiceSpec>],
    lvs: &Lvs,
) -> BTreeMap<ServiceId, ServiceDigest> {
    let digest = |service| Placement::declared(service, lvs).digest();
    let services = services.iter().map(Borrow::borrow);
    services.map(|it| (it.id(), digest(it))).collect()
}

impl Placement {
    /// What a declared service asks for.
    ///
    /// The order is the canonical one: real servers are inserted by ascending address and port,
    /// each at the head of the kernel's list.
    pub fn declared(service: &ServiceSpec, lvs: &Lvs) -> Self {
        let via = via(service.forwarding, service.tunnel());
        let slot = |server: &RealServerSpec| Slot {
            address: SocketAddr::V4(service.real_server_id(server).0),
            weight: u32::from(table_weight(service, server)),
            via: via.clone(),
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
        };
        let mut real_servers: Vec<Slot> = service.real_server.iter().map(slot).collect();
        real_servers.sort_by_key(|slot| std::cmp::Reverse(slot.address));
        let id = service.id();
        let sysctls = sysctls(lvs.profile, id.packets);
        Self {
            service: id,
            scheduler: Cow::Borrowed(service.scheduler.as_str()),
            by_order: goes_by_order(service.scheduler),
            flags: service.flags(),
            persistence: service.persistence,
            real_servers,
            timeouts: lvs.timeouts,
            sysctls: sysctls
                .map(|(key, value)| (key, Some(value.to_owned())))
                .collect(),
        }
    }

    /// The digest. What it is made of is in a fixed order and of known lengths, so that no two
    /// placements that differ are written alike.
    pub fn digest(&self) -> ServiceDigest {
        let Self {
            service,
            scheduler,
            by_order: _,
            flags,
            persistence,
            real_servers: _,
            timeouts,
            sysctls,
        } = self;
        let mut written = Written(Sha256::new());
        written.text(&service.to_string());
        written.text(scheduler);
        written.count(flags.len());
        for flag in flags {
            written.text(flag.as_str());
        }
        // No client stays for 0 s, so that this is no persistence.
        let (stay, mask) = persistence.map_or((0, Ipv4Addr::UNSPECIFIED), stay);
        written.number(stay);
        written.address(IpAddr::V4(mask));
        let slots = self.slots_in_order();
        written.count(slots.len());
        for slot in slots {
            written.slot(slot);
        }
        for timeout in [timeouts.tcp, timeouts.tcp_fin, timeouts.udp] {
            written.number(timeout.as_secs());
        }
        written.count(sysctls.len());
        for (key, value) in sysctls {
            written.text(key);
            written.text(value.as_deref().unwrap_or_default());
        }
        written.digest()
    }

    /// Where the order of the kernel's list decides nothing, it must not make directors differ.
    fn slots_in_order(&self) -> Vec<&Slot> {
        let mut slots: Vec<&Slot> = self.real_servers.iter().collect();
        if !self.by_order {
            slots.sort_by_key(|slot| slot.address);
        }
        slots
    }

    /// What another placement has otherwise, in words; empty where the digests are the same.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: String, found: String| {
            if expected != found {
                differences.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        for (what, of) in [
            ("service", Self::service_text as fn(&Self) -> String),
            ("scheduler", Self::scheduler_text),
            ("persistence", Self::persistence_text),
            ("timeouts", Self::timeouts_text),
            ("sysctls", Self::sysctls_text),
        ] {
            compare(what, of(self), of(found));
        }
        // The first that differs is enough of a list that may have a thousand.
        let (expected, found) = (self.slots_in_order(), found.slots_in_order());
        let at = |slots: &[&Slot], place: usize| {
            let slot = slots.get(place).map(ToString::to_string);
            slot.unwrap_or_else(|| "none".to_owned())
        };
        let places = 0..expected.len().max(found.len());
        if let Some(place) = places
            .into_iter()
            .find(|it| expected.get(*it) != found.get(*it))
        {
            let what = format!("real server {} of the list", place + 1);
            compare(&what, at(&expected, place), at(&found, place));
        }
        differences
    }

    fn service_text(&self) -> String {
        self.service.to_string()
    }

    fn scheduler_text(&self) -> String {
        let flags = self.flags.iter().map(|flag| format!(" {flag}"));
        format!("{}{}", self.scheduler, flags.collect::<String>())
    }

    fn persistence_text(&self) -> String {
        self.persistence.map_or("none".to_owned(), |persistence| {
            let (stay, mask) = stay(persistence);
            format!("{stay} s by {mask}")
        })
    }

    fn timeouts_text(&self) -> String {
        let Timeouts { tcp, tcp_fin, udp } = self.timeouts;
        let (tcp, tcp_fin, udp) = (tcp.as_secs(), tcp_fin.as_secs(), udp.as_secs());
        format!("tcp {tcp} s, tcp_fin {tcp_fin} s, udp {udp} s")
    }

    fn sysctls_text(&self) -> String {
        let sysctls = self.sysctls.iter().map(|(key, value)| {
            let value = value.as_deref().unwrap_or("missing");
            format!("{}={value}", key.replace('/', "."))
        });
        sysctls.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            weight,
            via,
            upper_threshold,
            lower_threshold,
        } = self;
        write!(f, "{address} weight {weight} {via}")?;
        match (upper_threshold, lower_threshold) {
            (0, 0) => Ok(()),
            (upper, lower) => write!(f, " thresholds {upper} {lower}"),
        }
    }
}

/// The seconds that a client stays for, and which addresses are one client.
fn stay(persistence: Persistence) -> (u64, Ipv4Addr) {
    let mask = persistence.netmask.unwrap_or(Netmask::HOST);
    (persistence.timeout.as_secs(), mask.address())
}

/// What has been written of a placement.
struct Written(Sha256);

impl Written {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).expect("a length fits 64 bits"));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.0.update([4]);
                self.0.update(address.octets());
            }
            IpAddr::V6(address) => {
                self.0.update([6]);
                self.0.update(address.octets());
            }
        }
    }

    fn slot(&mut self, slot: &Slot) {
        self.address(slot.address.ip());
        self.0.update(slot.address.port().to_be_bytes());
        self.0.update(slot.weight.to_be_bytes());
        self.text(&slot.via);
        self.0.update(slot.upper_threshold.to_be_bytes());
        self.0.update(slot.lower_threshold.to_be_bytes());
    }

    fn digest(self) -> ServiceDigest {
        let hash = self.0.finalize();
        let bytes = [VERSION].into_iter().chain(hash.into_iter().take(KEPT));
        ServiceDigest(bytes.map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests;
