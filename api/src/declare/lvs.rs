//! What is particular to Linux Virtual Server: schedulers, forwarding, persistence, and the
//! settings that all services of a director share.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ParseIdError, serde_as_text};

/// Writes the `Display` of an enum whose variants have names of the kernel's or of ours.
macro_rules! display_as_str {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// An IPVS scheduler (`net/netfilter/ipvs/ip_vs_*.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connection.
    Lc,
    /// Weighted least connection.
    Wlc,
    /// Locality-based least connection.
    Lblc,
    /// Locality-based least connection with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted failover: the heaviest available real server takes everything.
    Fo,
    /// Weighted overflow: the heaviest one that has not as many connections as its weight.
    Ovf,
    /// Maglev hashing: the one that several directors can share.
    #[default]
    Mh,
}

impl Scheduler {
    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
        }
    }
}

display_as_str!(Scheduler);

/// A flag of a service (`IP_VS_SVC_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerFlag {
    /// `mh`: take the next real server when the hashed one is unavailable.
    MhFallback,
    /// `mh`: hash the client's port too.
    MhPort,
    /// `sh`: take the next real server when the hashed one is unavailable.
    ShFallback,
    /// `sh`: hash the client's port too.
    ShPort,
    /// UDP: schedule each packet by itself.
    OnePacket,
}

impl SchedulerFlag {
    /// The name, as ipvsadm has it for the scheduler's own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
            Self::ShFallback => "sh-fallback",
            Self::ShPort => "sh-port",
            Self::OnePacket => "one-packet",
        }
    }

    /// The only scheduler that knows the flag; nothing for a flag of any scheduler.
    pub fn scheduler(self) -> Option<Scheduler> {
        match self {
            Self::MhFallback | Self::MhPort => Some(Scheduler::Mh),
            Self::ShFallback | Self::ShPort => Some(Scheduler::Sh),
            Self::OnePacket => None,
        }
    }
}

display_as_str!(SchedulerFlag);

/// The packet forwarding method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Direct routing: the frame is sent on to the real server's MAC address.
    #[default]
    Dr,
    /// Tunnelling, in the form that [`Tunnel`] says.
    Tun,
    /// Network address translation.
    Nat,
}

impl Forwarding {
    /// The name in files and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nat => "nat",
        }
    }
}

display_as_str!(Forwarding);

/// How packets are put into a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// The encapsulation.
    #[serde(default, rename = "type")]
    pub kind: TunnelKind,
    /// The UDP port that GUE packets are sent to (1 to 65535); only and always with `gue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The outer checksum; not with `ipip`, which has none.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

/// The encapsulation of a tunnel (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// IP in IP (RFC 2003).
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation (RFC 2784).
    Gre,
}

impl TunnelKind {
    /// ipvsadm's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

display_as_str!(TunnelKind);

/// The outer checksum of a tunnel (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// A full one.
    Csum,
    /// A remote checksum (GUE only).
    Remcsum,
}

impl TunnelChecksum {
    /// ipvsadm's name, without its `tun-`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Csum => "csum",
            Self::Remcsum => "remcsum",
        }
    }
}

display_as_str!(TunnelChecksum);

/// How long, and how many of them together, clients stay with their real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// How long after its last connection a client still goes to the same real server: whole
    /// seconds.
    #[serde(with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub timeout: Duration,
    /// Clients that this mask makes equal are one; each is its own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<Netmask>,
}

/// An IPv4 netmask, never empty and without holes: read as `255.255.255.0` or `24`, written as
/// the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Netmask {
    length: u8,
}

impl Netmask {
    /// The mask of a single host.
    pub const HOST: Self = Self { length: 32 };

    /// The mask as an address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - u32::from(self.length)))
    }
}

impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl FromStr for Netmask {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError {
            expected: "a netmask such as 255.255.255.0 or a length from 1 to 32",
            found: text.to_owned(),
        };
        let length = match text.parse::<Ipv4Addr>() {
            Ok(address) => {
                let bits = u32::from(address);
                if bits.leading_ones() + bits.trailing_zeros() != u32::BITS {
                    return Err(error());
                }
                u8::try_from(bits.leading_ones()).map_err(|_| error())?
            }
            Err(_) => text.parse().map_err(|_| error())?,
        };
        if (1..=32).contains(&length) {
            Ok(Self { length })
        } else {
            Err(error())
        }
    }
}

serde_as_text!(Netmask);

/// Where the connections of a cluster live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Any director takes over any connection, since all of them pick the same real server for
    /// it: needs `mh` and the same real servers everywhere.
    Stateless,
    /// In the one director that began them.
    Stateful,
}

impl Profile {
    /// The name in files and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
        }
    }

    /// What is used where nothing is declared for a cluster of so many directors.
    pub fn default_for(directors: usize) -> Self {
        if directors > 1 {
            Self::Stateless
        } else {
            Self::Stateful
        }
    }
}

display_as_str!(Profile);

/// `[lvs]`: the settings that all services of a director share, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LvsSpec {
    /// Where connections live; by the number of directors when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// How long idle connections are kept.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How long a removed real server may keep its connections.
    #[serde(default)]
    pub drain_limit: DrainLimit,
}

impl LvsSpec {
    /// The settings of a cluster of so many directors.
    pub fn resolve(self, directors: usize) -> Lvs {
        Lvs {
            profile: self
                .profile
                .unwrap_or_else(|| Profile::default_for(directors)),
            timeouts: self.timeouts,
            drain_limit: self.drain_limit,
        }
    }
}

/// The settings that all services of a director share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Lvs {
    /// Where connections live.
    pub profile: Profile,
    /// How long idle connections are kept.
    pub timeouts: Timeouts,
    /// How long a removed real server may keep its connections.
    pub drain_limit: DrainLimit,
}

/// What a desired state means that is from before there were such settings: connections were
/// always taken over.
impl Default for Lvs {
    fn default() -> Self {
        Self {
            profile: Profile::Stateless,
            timeouts: Timeouts::default(),
            drain_limit: DrainLimit::default(),
        }
    }
}

/// How long IPVS keeps a connection without packets (`ip_vs_timeout_user`); the kernel's own
/// values when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// An established TCP connection: whole seconds.
    #[serde(default = "default_tcp", with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub tcp: Duration,
    /// A TCP connection after a FIN: whole seconds.
    #[serde(default = "default_tcp_fin", with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub tcp_fin: Duration,
    /// UDP: whole seconds.
    #[serde(default = "default_udp", with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: default_tcp(),
            tcp_fin: default_tcp_fin(),
            udp: default_udp(),
        }
    }
}

fn default_tcp() -> Duration {
    Duration::from_secs(15 * 60)
}

fn default_tcp_fin() -> Duration {
    Duration::from_secs(2 * 60)
}

fn default_udp() -> Duration {
    Duration::from_secs(5 * 60)
}

/// How long a removed real server may keep its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DrainLimit(#[serde(with = "crate::duration")] pub Duration);

impl Default for DrainLimit {
    fn default() -> Self {
        Self(Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netmask_is_read_in_both_forms_and_has_no_holes() {
        for (text, mask) in [
            ("255.255.255.0", "255.255.255.0"),
            ("24", "255.255.255.0"),
            ("32", "255.255.255.255"),
            ("1", "128.0.0.0"),
        ] {
            assert_eq!(text.parse::<Netmask>().unwrap().to_string(), mask);
        }
        for bad in ["0.0.0.0", "0", "33", "255.0.255.0", "0.0.0.255", "x", ""] {
            let error = bad.parse::<Netmask>().unwrap_err();
            assert!(error.to_string().contains("netmask"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn the_profile_follows_the_number_of_directors_unless_it_is_declared() {
        let of = |spec: LvsSpec, directors| spec.resolve(directors).profile;
        assert_eq!(of(LvsSpec::default(), 1), Profile::Stateful);
        assert_eq!(of(LvsSpec::default(), 2), Profile::Stateless);
        let declared = LvsSpec {
            profile: Some(Profile::Stateful),
            ..LvsSpec::default()
        };
        assert_eq!(of(declared, 8), Profile::Stateful);
    }
}
