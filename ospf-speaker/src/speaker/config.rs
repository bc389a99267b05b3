//! The file's words in the core's types.

use std::collections::BTreeMap;

use isopath_api::config::{AreaType, DirectorFile, InterfaceConfig, NetworkType};
use isopath_api::declare::{Announce, AnnounceAs};
use isopath_api::ids::Vip;
use isopath_ospf::{Config, External, ExternalKind, Stub};

use crate::wanted::Verdict;

/// What the OSPF core is configured with.
pub(super) fn core(file: &DirectorFile, sequence_hint: Option<i32>) -> Config {
    Config {
        router_id: file.director.router_id.0.into(),
        area: file.ospf.area.0.into(),
        area_type: match file.ospf.area_type {
            AreaType::Normal => isopath_ospf::AreaType::Normal,
            AreaType::Stub => isopath_ospf::AreaType::Stub,
            AreaType::Nssa => isopath_ospf::AreaType::Nssa,
        },
        interfaces: file.ospf.interface.iter().map(interface).collect(),
        is_asbr: file
            .vip
            .iter()
            .any(|vip| vip.announce.kind != AnnounceAs::Stub),
        sequence_hint,
    }
}

fn interface(config: &InterfaceConfig) -> isopath_ospf::InterfaceConfig {
    // The file's check has bounded both; what cannot be is the longest there is.
    let seconds = config.hello_interval.as_secs();
    isopath_ospf::InterfaceConfig {
        network: match config.network {
            NetworkType::PointToPoint => isopath_ospf::NetworkType::PointToPoint,
            NetworkType::Broadcast => isopath_ospf::NetworkType::Broadcast,
        },
        hello_interval: u16::try_from(seconds).unwrap_or(u16::MAX),
        dead_interval: u32::try_from(config.dead_interval.as_secs()).unwrap_or(u32::MAX),
        retransmit_interval: config.retransmit_interval,
        cost: config.cost,
        peer_min_arrival: config.peer_min_arrival,
        advertise_mtu: config.advertise_mtu,
    }
}

/// The hosts of the verdicts as the core announces them: stubs, and external routes.
pub(super) fn hosts(verdicts: &BTreeMap<Vip, Verdict>) -> (Vec<Stub>, Vec<External>) {
    let (mut stubs, mut externals) = (Vec::new(), Vec::new());
    for (vip, verdict) in verdicts {
        let Verdict::Announce { how, .. } = verdict else {
            continue;
        };
        match host(*vip, *how) {
            Host::Stub(stub) => stubs.push(stub),
            Host::External(external) => externals.push(external),
        }
    }
    (stubs, externals)
}

/// A host as the core announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Stub(Stub),
    External(External),
}

/// A VIP as the core announces it. Type 7 LSAs have a type 1 metric: what a VIP costs is then
/// counted as for a stub, the switch's own cost to the director included.
pub(super) fn host(vip: Vip, how: Announce) -> Host {
    let (prefix, metric) = (vip.0, how.cost);
    let external = |kind| {
        Host::External(External {
            prefix,
            kind,
            metric,
        })
    };
    match how.kind {
        AnnounceAs::Stub => Host::Stub(Stub { prefix, metric }),
        AnnounceAs::External1 | AnnounceAs::Nssa => external(ExternalKind::Type1),
        AnnounceAs::External2 => external(ExternalKind::Type2),
    }
}
