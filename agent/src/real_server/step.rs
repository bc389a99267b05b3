//! One change to a real server's kernel.

use std::collections::BTreeMap;
use std::fmt;

use isopath_api::ids::Vip;

use super::wanted::Device;

/// One change to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make an interface: the dummy, or a tunnel's, which comes with its module.
    Make { name: String, device: Device },
    /// Write a sysctl, named as under `/proc/sys`, that had another value.
    SetSysctl {
        key: String,
        before: u32,
        value: u32,
    },
    /// Give back a sysctl's value.
    RestoreSysctl { key: String, value: u32 },
    /// Have the MSS of SYNs lowered, for each of these VIPs and no others.
    ClampMss(BTreeMap<Vip, u16>),
    /// Take GUE packets on a UDP port.
    OpenPort(u16),
    /// Take no more of them.
    ClosePort(u16),
    /// Set an interface up.
    Raise(String),
    /// Set an interface down.
    Lower(String),
    /// Put a VIP on an interface.
    AddVip { interface: String, vip: Vip },
    /// Take a VIP off an interface.
    RemoveVip { interface: String, vip: Vip },
    /// Delete an interface.
    RemoveInterface(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make { name, device } => match device {
                Device::Loopback => write!(f, "make {name}"),
                Device::Dummy => write!(f, "make the dummy interface {name}"),
                Device::Ipip | Device::Gre => {
                    write!(f, "load {} for interface {name}", device.module())
                }
            },
            Self::SetSysctl { key, before, value } => {
                write!(f, "set {} to {value} (was {before})", dotted(key))
            }
            Self::RestoreSysctl { key, value } => {
                write!(f, "set {} back to {value}", dotted(key))
            }
            Self::ClampMss(vips) if vips.is_empty() => f.write_str("lower no MSS any more"),
            Self::ClampMss(vips) => {
                f.write_str("lower the MSS of SYNs")?;
                for (index, (vip, mss)) in vips.iter().enumerate() {
                    let before = if index > 0 { "," } else { "" };
                    write!(f, "{before} from {vip} to {mss}")?;
                }
                Ok(())
            }
            Self::OpenPort(port) => write!(f, "take GUE packets on UDP port {port}"),
            Self::ClosePort(port) => write!(f, "take no more GUE packets on UDP port {port}"),
            Self::Raise(name) => write!(f, "set interface {name} up"),
            Self::Lower(name) => write!(f, "set interface {name} down"),
            Self::AddVip { interface, vip } => write!(f, "add VIP {vip} to interface {interface}"),
            Self::RemoveVip { interface, vip } => {
                write!(f, "remove VIP {vip} from interface {interface}")
            }
            Self::RemoveInterface(name) => write!(f, "delete interface {name}"),
        }
    }
}

/// A sysctl's name as `sysctl` takes it: a dot in an interface's name becomes a slash.
pub(super) fn dotted(key: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_named_as_sysctl_takes_it() {
        let key = "net/ipv4/conf/eth0.7/rp_filter";
        assert_eq!(dotted(key), "net.ipv4.conf.eth0/7.rp_filter");
    }
}
