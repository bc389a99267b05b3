//! Why a VIP is announced or not, why anything was refused or skipped.
//!
//! Each decision carries one [`Reason`], and the log, the metric, the API and the pages all
//! show that same one.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::declare::Announce;
use crate::digest::ServiceDigest;
use crate::ids::{ServiceId, Vip};

/// Why a director announces a VIP, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Reason {
    /// Announced: enough services are at their quorum.
    Healthy,
    /// Announced: the VIP has no services that could be unhealthy.
    NoServices,
    /// Announced or not: an operator said so for this VIP on this director.
    Override {
        /// The operator's words; empty when none were given.
        text: String,
    },
    /// Announced: the last state is kept while the checks decide after a restart of the agent.
    HeldOverRestart,
    /// Not announced: a service is below its quorum.
    BelowQuorum {
        /// The service.
        service: ServiceId,
        /// Its healthy real servers of weight above 0.
        healthy: u32,
        /// The healthy real servers it needs.
        quorum: u32,
        /// Its real servers in all.
        of: u32,
    },
    /// Not announced: the checks of a service have not decided yet.
    Undecided {
        /// The service.
        service: ServiceId,
    },
    /// Announced at the highest metric: this director is on its way out.
    Draining {
        /// The operator's words; empty when none were given.
        text: String,
    },
    /// Not announced: this director, or the VIP on all of them, is drained.
    Drained {
        /// The operator's words; empty when none were given.
        text: String,
    },
    /// Not announced: a step of the data plane failed or is not done yet.
    DataplaneNotReady {
        /// The step and its error.
        what: String,
    },
    /// Not announced: the kernel has no IPVS.
    NoIpvs,
    /// Not announced: the kernel has no such scheduler.
    NoScheduler {
        /// Its name.
        scheduler: String,
    },
    /// Not announced: a sysctl cannot be set, or does not keep its value.
    SysctlRefused {
        /// Its name, with dots.
        key: String,
        /// The value it needs.
        wanted: String,
        /// The value it has; nothing where the kernel does not know it.
        found: Option<String>,
    },
    /// Not announced: an interface that its traffic needs is down.
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// Not announced: somebody else answers ARP for the VIP.
    VipAnsweredElsewhere {
        /// The interface whose network the answer came from.
        interface: String,
        /// Who answered.
        mac: String,
    },
    /// Not announced: the packets of a tunnel do not fit.
    MtuTooSmall {
        /// The interface that leads to the real server.
        interface: String,
        /// Its MTU, in bytes.
        mtu: u32,
        /// The MTU it needs, in bytes.
        needed: u32,
    },
    /// Not announced: this director would send clients to other real servers than the others do.
    DigestMismatch {
        /// The service.
        service: ServiceId,
        /// The digest it must have.
        expected: ServiceDigest,
        /// The digest it has.
        found: ServiceDigest,
    },
    /// Not announced: no desired state contains the VIP.
    NotWanted,
    /// Not announced: the agent was silent for longer than `agent_hold`, so health is unknown.
    AgentSilent {
        /// The hold that ran out, in milliseconds.
        hold_ms: u64,
    },
    /// Not announced: it was withdrawn too often lately, and is held until it has not been for
    /// a while.
    HeldDown {
        /// How often it was withdrawn within `within_ms`.
        withdrawals: u32,
        /// In what time, in milliseconds.
        within_ms: u64,
        /// When it is announced again, unless it is withdrawn once more before.
        until: Timestamp,
    },
    /// Not announced: the process is stopping.
    Stopping,
}

impl Reason {
    /// The stable code, as the metric's label and the JSON have it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::NoServices => "no-services",
            Self::Override { .. } => "override",
            Self::HeldOverRestart => "held-over-restart",
            Self::BelowQuorum { .. } => "below-quorum",
            Self::Undecided { .. } => "undecided",
            Self::Draining { .. } => "draining",
            Self::Drained { .. } => "drained",
            Self::DataplaneNotReady { .. } => "dataplane-not-ready",
            Self::NoIpvs => "no-ipvs",
            Self::NoScheduler { .. } => "no-scheduler",
            Self::SysctlRefused { .. } => "sysctl-refused",
            Self::InterfaceDown { .. } => "interface-down",
            Self::VipAnsweredElsewhere { .. } => "vip-answered-elsewhere",
            Self::MtuTooSmall { .. } => "mtu-too-small",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::NotWanted => "not-wanted",
            Self::AgentSilent { .. } => "agent-silent",
            Self::HeldDown { .. } => "held-down",
            Self::Stopping => "stopping",
        }
    }

    /// Every code, for metrics that show one series a code.
    pub const CODES: [&'static str; 20] = [
        "healthy",
        "no-services",
        "override",
        "held-over-restart",
        "below-quorum",
        "undecided",
        "draining",
        "drained",
        "dataplane-not-ready",
        "no-ipvs",
        "no-scheduler",
        "sysctl-refused",
        "interface-down",
        "vip-answered-elsewhere",
        "mtu-too-small",
        "digest-mismatch",
        "not-wanted",
        "agent-silent",
        "held-down",
        "stopping",
    ];

    /// What an operator would do about it; nothing where nothing is wrong.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Healthy | Self::NoServices | Self::HeldOverRestart | Self::Stopping => None,
            Self::Override { .. } => Some("undo the override when it is no longer wanted"),
            Self::BelowQuorum { .. } => {
                Some("look at the real servers' last check results, then at the path to them")
            }
            Self::Undecided { .. } => Some("wait for the checks to decide"),
            Self::Draining { .. } => Some("wait until it has withdrawn"),
            Self::Drained { .. } => Some("undrain the director when the work on it is done"),
            Self::DataplaneNotReady { .. } => Some("mend what the error names; it is retried"),
            Self::NoIpvs => Some("load it with modprobe ip_vs, at boot through modules-load.d"),
            Self::NoScheduler { .. } => {
                Some("load the module ip_vs_ and its name, or declare another scheduler")
            }
            Self::SysctlRefused { .. } => {
                Some("see what else writes it, and that the agent may write under /proc/sys")
            }
            Self::InterfaceDown { .. } => Some("set it up, and look at its cable"),
            Self::VipAnsweredElsewhere { .. } => Some(
                "find the host with that address: a real server needs arp_ignore=1 \
                 (isopath-agent real-server status), another host must not have the VIP",
            ),
            Self::MtuTooSmall { .. } => Some("raise the MTU of the interface and its network"),
            Self::DigestMismatch { .. } => Some(
                "compare the director's real servers, their order and its settings with the \
                 others'; its agent may have another version",
            ),
            Self::NotWanted => Some("declare the VIP for this cluster, or leave it withdrawn"),
            Self::AgentSilent { .. } => Some("see why isopath-agent does not run on the director"),
            Self::HeldDown { .. } => {
                Some("see what makes it come and go; isopath announce ends the hold at once")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("enough services are healthy"),
            Self::NoServices => f.write_str("the VIP has no services to check"),
            Self::Override { text } if text.is_empty() => f.write_str("an operator's override"),
            Self::Override { text } => write!(f, "an operator's override: {text}"),
            Self::HeldOverRestart => f.write_str("kept over the agent's restart"),
            Self::BelowQuorum {
                service,
                healthy,
                quorum,
                of,
            } => {
                write!(
                    f,
                    "{service}: {healthy} of {of} real servers healthy, {quorum} needed"
                )
            }
            Self::Undecided { service } => write!(f, "{service}: checks have not decided yet"),
            Self::Draining { text } if text.is_empty() => {
                f.write_str("being drained by an operator")
            }
            Self::Draining { text } => write!(f, "being drained by an operator: {text}"),
            Self::Drained { text } if text.is_empty() => f.write_str("drained by an operator"),
            Self::Drained { text } => write!(f, "drained by an operator: {text}"),
            Self::DataplaneNotReady { what } => write!(f, "data plane not ready: {what}"),
            Self::NoIpvs => f.write_str("this kernel has no IPVS loaded"),
            Self::NoScheduler { scheduler } => {
                write!(f, "this kernel has no scheduler {scheduler}")
            }
            Self::SysctlRefused { key, wanted, found } => {
                write!(f, "{key} must be {wanted} and ")?;
                match found {
                    Some(found) => write!(f, "stays {found}"),
                    None => f.write_str("is not there"),
                }
            }
            Self::InterfaceDown { interface } => write!(f, "interface {interface} is down"),
            Self::VipAnsweredElsewhere { interface, mac } => {
                write!(f, "{mac} on {interface} answers ARP for the VIP")
            }
            Self::MtuTooSmall {
                interface,
                mtu,
                needed,
            } => write!(
                f,
                "{interface} has an MTU of {mtu}, the tunnel to the real server needs {needed}"
            ),
            Self::DigestMismatch {
                service,
                expected,
                found,
            } => write!(
                f,
                "{service} would send clients elsewhere than other directors do: its digest is \
                 {found}, not {expected}"
            ),
            Self::NotWanted => f.write_str("not in the desired state"),
            Self::AgentSilent { hold_ms } => {
                write!(f, "the agent was silent for longer than {hold_ms} ms")
            }
            Self::HeldDown {
                withdrawals,
                within_ms,
                until,
            } => {
                let within = std::time::Duration::from_millis(*within_ms);
                write!(
                    f,
                    "held down until {until}: withdrawn {withdrawals} times within {}",
                    humantime::format_duration(within)
                )
            }
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// What the announce decision of one VIP says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decision {
    /// The VIP.
    pub vip: Vip,
    /// How to announce it; nothing to withdraw it.
    pub announce: Option<Announce>,
    /// Why.
    pub reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_tag_that_the_json_carries() {
        let service = "tcp:10.99.0.1:80".parse().unwrap();
        let reasons = [
            Reason::Healthy,
            Reason::NoServices,
            Reason::Override {
                text: String::new(),
            },
            Reason::HeldOverRestart,
            Reason::BelowQuorum {
                service,
                healthy: 0,
                quorum: 1,
                of: 3,
            },
            Reason::Undecided { service },
            Reason::Draining {
                text: String::new(),
            },
            Reason::Drained {
                text: String::new(),
            },
            Reason::DataplaneNotReady {
                what: String::new(),
            },
            Reason::NoIpvs,
            Reason::NoScheduler {
                scheduler: String::new(),
            },
            Reason::SysctlRefused {
                key: String::new(),
                wanted: String::new(),
                found: None,
            },
            Reason::InterfaceDown {
                interface: String::new(),
            },
            Reason::VipAnsweredElsewhere {
                interface: String::new(),
                mac: String::new(),
            },
            Reason::MtuTooSmall {
                interface: String::new(),
                mtu: 0,
                needed: 0,
            },
            Reason::DigestMismatch {
                service,
                expected: "0100".parse().unwrap(),
                found: "0101".parse().unwrap(),
            },
            Reason::NotWanted,
            Reason::AgentSilent { hold_ms: 1 },
            Reason::HeldDown {
                withdrawals: 10,
                within_ms: 60_000,
                until: Timestamp::UNIX_EPOCH,
            },
            Reason::Stopping,
        ];
        let codes: Vec<_> = reasons.iter().map(Reason::code).collect();
        assert_eq!(codes, Reason::CODES);
        for reason in reasons {
            let json = serde_json::to_value(&reason).unwrap();
            assert_eq!(json["code"], reason.code());
        }
    }
}
