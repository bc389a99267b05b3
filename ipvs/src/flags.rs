//! The flags of a service.

use std::fmt;

/// `IP_VS_SVC_F_*`. What the scheduler's three flags mean depends on the scheduler.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The service is persistent.
    pub const PERSISTENT: Self = Self(0x0001);
    /// The service is in the kernel's table: set by the kernel alone.
    pub const HASHED: Self = Self(0x0002);
    /// Each packet is scheduled by itself (UDP).
    pub const ONE_PACKET: Self = Self(0x0004);
    /// The scheduler's first flag.
    pub const SCHED1: Self = Self(0x0008);
    /// The scheduler's second flag.
    pub const SCHED2: Self = Self(0x0010);
    /// The scheduler's third flag, which no scheduler of Linux looks at.
    pub const SCHED3: Self = Self(0x0020);
    /// `sh`: take another destination when the hashed one is unavailable (`ip_vs_sh.c`).
    pub const SH_FALLBACK: Self = Self::SCHED1;
    /// `sh`: hash the client's port too (`ip_vs_sh.c`).
    pub const SH_PORT: Self = Self::SCHED2;
    /// `mh`: take another destination when the hashed one is unavailable (`ip_vs_mh.c`).
    pub const MH_FALLBACK: Self = Self::SCHED1;
    /// `mh`: hash the client's port too (`ip_vs_mh.c`).
    pub const MH_PORT: Self = Self::SCHED2;

    /// The flags with these bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for ServiceFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for ServiceFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(ServiceFlags, &str); 6] = [
            (ServiceFlags::PERSISTENT, "PERSISTENT"),
            (ServiceFlags::HASHED, "HASHED"),
            (ServiceFlags::ONE_PACKET, "ONE_PACKET"),
            (ServiceFlags::SCHED1, "SCHED1"),
            (ServiceFlags::SCHED2, "SCHED2"),
            (ServiceFlags::SCHED3, "SCHED3"),
        ];
        let mut rest = *self;
        let mut names = Vec::new();
        for (flag, name) in NAMES {
            if self.contains(flag) {
                names.push(name.to_owned());
                rest = rest.without(flag);
            }
        }
        if rest != Self::NONE || names.is_empty() {
            names.push(format!("{:#x}", rest.0));
        }
        write!(f, "ServiceFlags({})", names.join(" | "))
    }
}
