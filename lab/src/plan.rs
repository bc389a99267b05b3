//! The lab's addresses: the same in every lab, since each lives in namespaces of its own.

use std::net::{Ipv4Addr, SocketAddrV4};

use isopath_api::config::NetworkType;
use isopath_api::ids::{RouterId, Vip};

/// The VIP that labs serve.
pub const VIP: Vip = Vip(Ipv4Addr::new(10, 99, 0, 1));
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The client's default gateway: the switch.
pub const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The switch's router id.
pub const SWITCH_ROUTER_ID: RouterId = RouterId(Ipv4Addr::new(10, 0, 0, 1));
/// The real servers' default gateway: the switch, so that replies do not pass a director.
pub const SERVER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Where the controller listens, on the management network.
pub const CONTROLLER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 254, 0, 1), 8080);
/// The most directors and the most real servers that the plan has addresses for.
pub const MOST: u8 = 64;

/// The router id of director `n`, counted from 1.
pub fn router_id(n: u8) -> RouterId {
    RouterId(Ipv4Addr::new(10, 0, n, 2))
}

/// The switch's one address on all unnumbered uplinks.
pub const UNNUMBERED_SWITCH: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// Whether director `n` borrows the address of an unnumbered uplink from its loopback interface:
/// every other one does, the rest have it on the uplink itself.
pub fn borrows(n: u8) -> bool {
    n.is_multiple_of(2)
}

/// Both ends of a director's uplink; the network is a /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// The switch's address.
    pub switch: Ipv4Addr,
    /// The director's address, which is the switch's next hop to it.
    pub director: Ipv4Addr,
}

/// The uplink of director `n`: a network of its own, or the segment they all share.
pub fn uplink(network: NetworkType, n: u8) -> Uplink {
    match network {
        NetworkType::PointToPoint => Uplink {
            switch: Ipv4Addr::new(10, 0, n, 1),
            director: Ipv4Addr::new(10, 0, n, 2),
        },
        NetworkType::Broadcast => Uplink {
            switch: Ipv4Addr::new(10, 0, 1, 1),
            director: Ipv4Addr::new(10, 0, 1, 10 + n),
        },
    }
}

/// The address of director `n` in the real servers' network.
pub fn director_lan(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 100 + n)
}

/// The address of real server `n`.
pub fn real_server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + n)
}

/// The address of director `n` in the management network.
pub fn director_management(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 254, 0, 10 + n)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        for network in [NetworkType::PointToPoint, NetworkType::Broadcast] {
            let mut seen =
                BTreeSet::from([CLIENT, CLIENT_GATEWAY, SERVER_GATEWAY, *CONTROLLER.ip()]);
            for n in 1..=MOST {
                for address in [
                    uplink(network, n).director,
                    director_lan(n),
                    real_server(n),
                    director_management(n),
                ] {
                    assert!(
                        seen.insert(address),
                        "{network:?}: {address} is given twice"
                    );
                }
            }
        }
    }
}
