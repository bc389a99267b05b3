//! The sysctls of a director, in the network namespace of the process.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use isopath_api::declare::{Forwarding, Profile};
use isopath_api::digest;
use isopath_api::reason::Reason;

use super::state::Wanted;
use super::step::Step;

/// What IPVS does with a connection whose real server is gone: 1 ends it, 0 drops its packets.
pub(super) const EXPIRE_NODEST_CONN: &str = "net/ipv4/vs/expire_nodest_conn";

const CONF: &str = "net/ipv4/conf";
const RP_FILTER: &str = "rp_filter";
const SEND_REDIRECTS: &str = "send_redirects";

/// The sysctls by name, as under `/proc/sys`, with their values; nothing for one that this kernel
/// does not have.
pub(super) type Values = BTreeMap<String, Option<String>>;

/// A sysctl that must have a value.
struct Required {
    key: &'static str,
    stateless: &'static str,
    stateful: &'static str,
    /// Whether a kernel that does not have it cannot do what is wanted.
    needed: fn(Needs) -> bool,
}

/// What of the wanted state decides about sysctls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    profile: Profile,
    nat: bool,
    /// Whether a service may get SCTP.
    sctp: bool,
}

impl Needs {
    pub(super) fn of(wanted: &Wanted) -> Self {
        let mut services = wanted.services.values();
        Self {
            profile: wanted.lvs.profile,
            nat: services.any(|service| service.forwarding == Forwarding::Nat),
            sctp: wanted
                .services
                .keys()
                .any(|id| digest::may_be_sctp(id.packets)),
        }
    }

    fn stateless(self) -> bool {
        match self.profile {
            Profile::Stateless => true,
            Profile::Stateful => false,
        }
    }
}

fn always(_: Needs) -> bool {
    true
}

fn never(_: Needs) -> bool {
    false
}

/// The sysctls that must have a value, in the order in which they are written.
const REQUIRED: [Required; 9] = [
    // NAT forwards; the kernel resets others with it, so it comes first.
    both("net/ipv4/ip_forward", "1", always),
    // A packet of a connection that another director began is scheduled like a first one. It
    // must hold before anything is announced. With one director at a time a packet of an unknown
    // connection belongs to none, and every real server would refuse it.
    by_profile("net/ipv4/vs/sloppy_tcp", Needs::stateless),
    by_profile("net/ipv4/vs/sloppy_sctp", |needs| {
        needs.stateless() && needs.sctp
    }),
    // An ICMP error about such a connection finds its real server too.
    by_profile("net/ipv4/vs/schedule_icmp", Needs::stateless),
    // A connection to a real server that is gone ends instead of being dropped silently.
    both(EXPIRE_NODEST_CONN, "1", always),
    // A persistent client leaves a real server of weight 0.
    both("net/ipv4/vs/expire_quiescent_template", "1", always),
    // A client's reused port is a new connection, without a delay from Linux 5.9 on. A director of
    // DR or tunnels sees no answers, so that an entry ends in FIN_WAIT, minutes before it expires;
    // with bit 2 that is an end too (`is_new_conn_expected` in net/netfilter/ipvs/ip_vs_core.c).
    // Without it a port that is used again stays with the real server of its entry, whatever the
    // table says now, and the next director resets that connection. A kernel before 4.1 does not
    // have it and has no mh either.
    Required {
        key: "net/ipv4/vs/conn_reuse_mode",
        stateless: "3",
        stateful: "1",
        needed: never,
    },
    // The VIPs are reached by route alone: an answer to ARP would take them past the switch.
    // The greater of `all` and the interface's own value counts, so `all` is enough.
    both("net/ipv4/conf/all/arp_ignore", "1", always),
    both("net/ipv4/conf/all/arp_announce", "2", always),
];

const fn both(key: &'static str, value: &'static str, needed: fn(Needs) -> bool) -> Required {
    Required {
        key,
        stateless: value,
        stateful: value,
        needed,
    }
}

/// On in the stateless profile and off in the other.
const fn by_profile(key: &'static str, needed: fn(Needs) -> bool) -> Required {
    Required {
        key,
        stateless: "1",
        stateful: "0",
        needed,
    }
}

impl Required {
    fn value(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Stateless => self.stateless,
            Profile::Stateful => self.stateful,
        }
    }

    /// Whether it has to be written. One that is missing and needed is written too, so that the
    /// refusal has the kernel's own words.
    fn differs(&self, observed: &Values, needs: Needs) -> bool {
        match observed.get(self.key).and_then(Option::as_deref) {
            Some(found) => found != self.value(needs.profile),
            None => (self.needed)(needs),
        }
    }
}

/// The steps that give the sysctls their values.
pub(super) fn plan(observed: &Values, needs: Needs) -> Vec<Step> {
    let differing = REQUIRED.iter().filter(|it| it.differs(observed, needs));
    let required = differing.map(|it| Step::SetSysctl {
        key: it.key.to_owned(),
        value: it.value(needs.profile),
    });
    let loosened = is_strict(observed).then(|| Step::SetSysctl {
        key: conf("all", RP_FILTER),
        value: "2",
    });
    let silenced = redirecting(observed)
        .filter(|_| needs.nat)
        .map(|key| Step::SetSysctl {
            key: key.to_owned(),
            value: "0",
        });
    required.chain(loosened).chain(silenced).collect()
}

/// Strict reverse path filtering drops clients' packets that come in over another uplink than
/// the one that leads back to them, which is normal with two switches. The greater of `all`
/// and the interface's own value counts (`IN_DEV_RPFILTER`), so 2, loose, on `all` replaces a
/// strict 1 anywhere. Where nothing is strict, nothing is changed.
fn is_strict(observed: &Values) -> bool {
    let all = observed.get(&conf("all", RP_FILTER));
    let loose = all.is_some_and(|value| value.as_deref() == Some("2"));
    !loose && of_interfaces(observed, RP_FILTER).any(|(_, value)| value == "1")
}

/// A real server of NAT has the director for its gateway. Where its client is on the same
/// Ethernet, the kernel would tell it of a shorter way, by which the answer would leave with the
/// real server's own address (`ip_forward` sends the redirect before IPVS sees the packet).
/// `all` or the interface's own value is enough to send one (`IN_DEV_TX_REDIRECTS`), so both are
/// 0 on every interface: which of them leads to a real server changes with the routes.
fn redirecting(observed: &Values) -> impl Iterator<Item = &str> {
    let sending = of_interfaces(observed, SEND_REDIRECTS).filter(|(_, value)| *value != "0");
    sending.map(|(key, _)| key)
}

/// The values of all interfaces and of `all`, but not of `default`, which only decides about
/// interfaces to come.
fn of_interfaces<'a>(observed: &'a Values, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let default = conf("default", name);
    let name = format!("/{name}");
    observed.iter().filter_map(move |(key, value)| {
        let of_interface = key.starts_with(CONF) && key.ends_with(&name) && *key != default;
        of_interface.then_some((key.as_str(), value.as_deref()?))
    })
}

fn conf(interface: &str, name: &str) -> String {
    format!("{CONF}/{interface}/{name}")
}

/// What is said of a sysctl that was not taken, or not kept.
pub(super) fn refused(key: &str, wanted: &str, observed: &Values) -> Reason {
    Reason::SysctlRefused {
        key: key.replace('/', "."),
        wanted: wanted.to_owned(),
        found: observed.get(key).cloned().flatten(),
    }
}

/// Reads the sysctls that matter; `root` is `/proc/sys`. Its files are the kernel's memory, so
/// reading does not wait for a disk.
pub(super) fn read(root: &Path) -> io::Result<Values> {
    let mut keys: Vec<String> = REQUIRED.iter().map(|it| it.key.to_owned()).collect();
    for entry in std::fs::read_dir(root.join(CONF))? {
        if let Some(name) = entry?.file_name().to_str() {
            keys.push(conf(name, RP_FILTER));
            keys.push(conf(name, SEND_REDIRECTS));
        }
    }
    let mut sysctls = Values::new();
    for key in keys {
        let value = match std::fs::read_to_string(root.join(&key)) {
            Ok(text) => Some(text.trim().to_owned()),
            // Missing in this kernel, or an interface that has just gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        sysctls.insert(key, value);
    }
    Ok(sysctls)
}

/// Writes a sysctl.
pub(super) fn write(root: &Path, key: &str, value: &str) -> io::Result<()> {
    std::fs::write(root.join(key), value)
}

#[cfg(test)]
mod tests;
