//! What the speaker is told: the configuration, the kernel's view of a link, the wanted stubs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AreaId, InterfaceId, RouterId};
use crate::packet::ExternalKind;

/// The most host stubs that one Router-LSA can carry beside its links: 5000 links are 60 kB, and
/// an IP packet ends at 64 KiB.
pub const MAX_STUBS: usize = 5000;

/// The most external routes, each an LSA of its own: what a switch with a small database still
/// takes from each of eight directors.
pub const MAX_EXTERNALS: usize = 10_000;

/// The most interfaces, so that their links fit beside [`MAX_STUBS`].
pub const MAX_INTERFACES: usize = 32;

/// What does not change while the speaker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our router id.
    pub router_id: RouterId,
    /// The one area that all interfaces are in.
    pub area: AreaId,
    /// What kind of area it is.
    pub area_type: AreaType,
    /// The interfaces; [`InterfaceId`] counts them from zero.
    pub interfaces: Vec<InterfaceConfig>,
    /// Whether external routes will be announced. The E bit of an AS boundary router is then in
    /// the first Router-LSA, and the first external route does not wait for a second one.
    pub is_asbr: bool,
    /// The last sequence number that an earlier run is known to have used. Our first instance
    /// goes above it, so that a stale copy in the area need not be answered.
    pub sequence_hint: Option<i32>,
}

/// The kind of an area (RFC 2328 §3.6, RFC 3101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AreaType {
    /// AS-external-LSAs are flooded throughout.
    Normal,
    /// No AS-external-LSAs.
    Stub,
    /// No AS-external-LSAs but type 7 in their place.
    Nssa,
}

/// The kind of network an interface is attached to (RFC 2328 §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkType {
    /// Two routers and nobody else.
    PointToPoint,
    /// A segment with a Designated Router, which we never are.
    Broadcast,
}

/// An interface's settings (RFC 2328 §C.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// The kind of network.
    pub network: NetworkType,
    /// HelloInterval in seconds, at least 1; all routers of the network agree on it.
    pub hello_interval: u16,
    /// RouterDeadInterval in seconds, more than the HelloInterval; all agree on it.
    pub dead_interval: u32,
    /// RxmtInterval, at least 100 ms.
    pub retransmit_interval: Duration,
    /// The cost of the interface's own subnet; links to routers always cost 0xffff (RFC 6987).
    pub cost: u16,
    /// The neighbours' MinLSArrival: a second instance of an LSA that reaches them sooner after
    /// the first is dropped.
    pub peer_min_arrival: Duration,
    /// The MTU that Database Description packets name in place of the link's; 0 where the peer
    /// (BIRD) insists on its own MTU and the link's differs.
    pub advertise_mtu: Option<u16>,
}

/// What the kernel says about an interface that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Our address on it.
    pub address: Ipv4Addr,
    /// The length of its prefix; 32 means that the link is unnumbered.
    pub prefix_len: u8,
    /// The MTU in bytes.
    pub mtu: u16,
    /// The kernel's interface index, which identifies an unnumbered link (RFC 2328 §12.4.1.1).
    pub index: u32,
}

impl LinkState {
    /// The subnet's mask.
    pub(crate) fn mask(self) -> Ipv4Addr {
        let host_bits = 32_u32.saturating_sub(u32::from(self.prefix_len));
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    /// The subnet's address.
    pub(crate) fn subnet(self) -> Ipv4Addr {
        self.address & self.mask()
    }

    /// Whether an address is in the subnet.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.subnet()
    }

    /// Whether the link has no subnet of its own.
    pub fn is_unnumbered(self) -> bool {
        self.prefix_len >= 32
    }
}

/// A host route to announce: a type 3 link with mask 255.255.255.255 in the Router-LSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stub {
    /// The host's address.
    pub prefix: Ipv4Addr,
    /// Its metric.
    pub metric: u16,
}

/// A host route to announce: an AS-external-LSA (type 5), or a type 7 LSA in an NSSA. The metric
/// has the 16 bits of a stub's, so that a host can be announced either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct External {
    /// The host's address.
    pub prefix: Ipv4Addr,
    /// The type of its metric.
    pub kind: ExternalKind,
    /// Its metric.
    pub metric: u16,
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The router id is 0.0.0.0.
    #[error("the router id is 0.0.0.0")]
    ZeroRouterId,
    /// The backbone cannot be a stub area or an NSSA (RFC 2328 §3.6).
    #[error("the backbone 0.0.0.0 cannot be a stub area or an NSSA")]
    StubBackbone,
    /// More interfaces than fit a Router-LSA beside the stubs.
    #[error("{0} interfaces are more than {MAX_INTERFACES}")]
    TooManyInterfaces(usize),
    /// A HelloInterval of zero.
    #[error("interface {}: the hello interval is zero", .0.0)]
    ZeroHelloInterval(InterfaceId),
    /// A neighbour would be declared dead between two of its Hellos.
    #[error("interface {}: the dead interval {dead} s is not above the hello interval {hello} s", .id.0)]
    DeadNotAboveHello {
        /// The interface.
        id: InterfaceId,
        /// Its hello interval in seconds.
        hello: u16,
        /// Its dead interval in seconds.
        dead: u32,
    },
    /// A retransmission interval that would flood the link.
    #[error("interface {}: the retransmit interval {interval:?} is below 100 ms", .id.0)]
    RetransmitTooShort {
        /// The interface.
        id: InterfaceId,
        /// The interval.
        interval: Duration,
    },
}

/// A set that cannot be announced; the announced set stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// More stubs than a Router-LSA can carry.
    #[error("{0} stubs are more than the {MAX_STUBS} that a Router-LSA can carry")]
    TooManyStubs(usize),
    /// More external routes than we originate.
    #[error("{0} external routes are more than {MAX_EXTERNALS}")]
    TooManyExternals(usize),
    /// A stub area has no external routes of its own (RFC 2328 §3.6).
    #[error("{0}: a stub area has no external routes")]
    ExternalInStubArea(Ipv4Addr),
}

impl Config {
    /// Checks what the types cannot express.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.router_id.0.is_unspecified() {
            return Err(ConfigError::ZeroRouterId);
        }
        if self.area.0.is_unspecified() && self.area_type != AreaType::Normal {
            return Err(ConfigError::StubBackbone);
        }
        if self.interfaces.len() > MAX_INTERFACES {
            return Err(ConfigError::TooManyInterfaces(self.interfaces.len()));
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            interface.validate(InterfaceId(index))?;
        }
        Ok(())
    }
}

impl InterfaceConfig {
    fn validate(&self, id: InterfaceId) -> Result<(), ConfigError> {
        if self.hello_interval == 0 {
            return Err(ConfigError::ZeroHelloInterval(id));
        }
        if self.dead_interval <= u32::from(self.hello_interval) {
            return Err(ConfigError::DeadNotAboveHello {
                id,
                hello: self.hello_interval,
                dead: self.dead_interval,
            });
        }
        if self.retransmit_interval < Duration::from_millis(100) {
            return Err(ConfigError::RetransmitTooShort {
                id,
                interval: self.retransmit_interval,
            });
        }
        Ok(())
    }
}

/// The stubs of a wanted set in canonical order, each host once with its lowest metric.
pub(crate) fn canonical_stubs(stubs: &[Stub]) -> Result<Vec<Stub>, AnnounceError> {
    let sorted: BTreeSet<Stub> = stubs.iter().copied().collect();
    let mut unique: Vec<Stub> = sorted.into_iter().collect();
    unique.dedup_by_key(|stub| stub.prefix);
    if unique.len() > MAX_STUBS {
        return Err(AnnounceError::TooManyStubs(unique.len()));
    }
    Ok(unique)
}

/// The external routes of a wanted set by address, each host once, type 1 before type 2 and with
/// its lowest metric.
pub(crate) fn canonical_externals(
    externals: &[External],
    area_type: AreaType,
) -> Result<BTreeMap<Ipv4Addr, External>, AnnounceError> {
    if let (AreaType::Stub, Some(external)) = (area_type, externals.first()) {
        return Err(AnnounceError::ExternalInStubArea(external.prefix));
    }
    let sorted: BTreeSet<External> = externals.iter().copied().collect();
    let unique: BTreeMap<Ipv4Addr, External> = sorted
        .into_iter()
        .rev()
        .map(|external| (external.prefix, external))
        .collect();
    if unique.len() > MAX_EXTERNALS {
        return Err(AnnounceError::TooManyExternals(unique.len()));
    }
    Ok(unique)
}
