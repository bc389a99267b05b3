//! The schedulers.

use std::fmt;

/// How a service picks a destination for a new connection: the modules `ip_vs_*` of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Locality-based least connections: one destination for a destination address.
    Lblc,
    /// Locality-based least connections with replication: a set for a destination address.
    Lblcr,
    /// Hashing of the destination address.
    Dh,
    /// Hashing of the source address.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle destination, else the shortest expected delay.
    Nq,
    /// Weighted failover: the available destination of the greatest weight.
    Fo,
    /// Weighted overflow: as failover, while a destination has fewer connections than weight.
    Ovf,
    /// Maglev hashing; [`crate::mh`] computes its table.
    Mh,
    /// Another one, by its name. `none` is a service without scheduler (since Linux 4.1).
    Other(Box<str>),
}

impl Scheduler {
    /// All that the kernel comes with.
    pub const ALL: [Self; 13] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
    ];

    /// The kernel's name of it.
    pub fn name(&self) -> &str {
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
            Self::Other(name) => name,
        }
    }

    /// The module that it is in.
    pub fn module(&self) -> String {
        format!("ip_vs_{}", self.name())
    }
}

impl From<&str> for Scheduler {
    fn from(name: &str) -> Self {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.unwrap_or_else(|| Self::Other(name.into()))
    }
}

impl From<String> for Scheduler {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
