//! The file's words in the core's types.

use isopath_api::config::{AreaType, DirectorFile, InterfaceConfig, NetworkType};
use isopath_ospf::Config;

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
        is_asbr: false,
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
