//! Counters of what was sent, received and dropped, each drop by its reason.

use std::collections::BTreeMap;

/// Declares an enum of reasons with a name for each and the list of all.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons!(
    /// Why a whole packet was dropped.
    PacketDrop {
        /// The interface is down or unknown.
        InterfaceDown = "interface_down",
        /// Our own packet, looped back.
        OwnPacket = "own_packet",
        /// Another router with our router id.
        OwnRouterId = "own_router_id",
        /// A router id of zero.
        ZeroRouterId = "zero_router_id",
        /// Sent to the Designated Routers, which we never are, or to an address not ours.
        WrongDestination = "wrong_destination",
        /// The source is not in the interface's subnet.
        WrongSubnet = "wrong_subnet",
        /// Another area.
        WrongArea = "wrong_area",
        /// Shorter than its header or its own length field says.
        Truncated = "truncated",
        /// Not OSPF version 2.
        Version = "version",
        /// An unknown packet type.
        UnknownType = "unknown_type",
        /// The packet's checksum is wrong.
        Checksum = "checksum",
        /// An authentication type other than ours.
        AuthType = "auth_type",
        /// Another simple password than ours.
        AuthPassword = "auth_password",
        /// A key id that we have no key for.
        AuthUnknownKey = "auth_unknown_key",
        /// A key that is not to be accepted now.
        AuthKeyLifetime = "auth_key_lifetime",
        /// A digest that the key does not give: another key, or a damaged packet.
        AuthDigest = "auth_digest",
        /// A sequence number below the neighbour's last: a replay, or packets out of order.
        AuthReplay = "auth_replay",
        /// A body that breaks the format.
        Malformed = "malformed",
        /// A Hello with another network mask.
        NetworkMask = "network_mask",
        /// A Hello with another HelloInterval.
        HelloInterval = "hello_interval",
        /// A Hello with another RouterDeadInterval.
        DeadInterval = "dead_interval",
        /// A Hello of another kind of area (E or N bit).
        AreaOptions = "area_options",
        /// The interface has as many neighbours as we keep.
        TooManyNeighbors = "too_many_neighbors",
        /// Not a Hello, and from nobody we know.
        UnknownNeighbor = "unknown_neighbor",
        /// The neighbour's state does not admit this packet.
        NeighborState = "neighbor_state",
        /// A Database Description with an MTU larger than ours.
        Mtu = "mtu",
        /// A Database Description that does not open an exchange in ExStart.
        ExStart = "exstart",
        /// A duplicate of the last Database Description.
        DuplicateDbDesc = "duplicate_dbdesc",
        /// A Database Description out of sequence; the exchange starts over.
        SequenceMismatch = "sequence_mismatch",
        /// A request for an LSA that is not in our database; the exchange starts over.
        BadRequest = "bad_request",
        /// The planned stop is complete.
        Stopped = "stopped",
    }
);

reasons!(
    /// Why a single received LSA was discarded (RFC 2328 §13).
    LsaDrop {
        /// Step 1: the LSA's checksum is wrong or zero.
        Checksum = "checksum",
        /// Step 2: an LS type that we do not store.
        UnknownType = "unknown_type",
        /// Step 3: an LS type that does not belong into this kind of area.
        AreaType = "area_type",
        /// An age above MaxAge (DoNotAge is not supported).
        Age = "age",
        /// The reserved sequence number 0x80000000.
        Sequence = "sequence",
        /// A Router-LSA whose Link State ID is not its advertising router.
        RouterLsaId = "router_lsa_id",
        /// Step 4: MaxAge and not in the database.
        MaxAgeUnknown = "max_age_unknown",
        /// Step 5a: sooner than MinLSArrival after the last instance.
        MinArrival = "min_arrival",
        /// Step 6: on the sender's own request list though not newer; the exchange starts over.
        BadRequest = "bad_request",
        /// Step 8: older than ours.
        Older = "older",
        /// The database is full.
        DatabaseFull = "database_full",
    }
);

/// Counts since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Packets received, dropped ones included.
    pub packets_received: u64,
    /// Packets handed to the shell to be sent.
    pub packets_sent: u64,
    /// Hellos sent.
    pub hellos_sent: u64,
    /// LSAs received in Link State Updates.
    pub lsas_received: u64,
    /// LSAs put into the database, our own included.
    pub lsas_installed: u64,
    /// LSAs removed from the database.
    pub lsas_purged: u64,
    /// Instances of our own LSAs originated.
    pub originated: u64,
    /// LSAs of ours that were flushed because they were wanted no more.
    pub flushed: u64,
    /// Times that a newer copy of an LSA of ours came from the network.
    pub self_originated_received: u64,
    /// LSAs sent again for want of an acknowledgement.
    pub retransmitted: u64,
    /// Acknowledgements for nothing that was sent.
    pub stray_acknowledgements: u64,
    /// Times that a Database Exchange started over by an error.
    pub exchange_restarts: u64,
    packet_drops: [u64; PacketDrop::ALL.len()],
    lsa_drops: [u64; LsaDrop::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets_received: 0,
            packets_sent: 0,
            hellos_sent: 0,
            lsas_received: 0,
            lsas_installed: 0,
            lsas_purged: 0,
            originated: 0,
            flushed: 0,
            self_originated_received: 0,
            retransmitted: 0,
            stray_acknowledgements: 0,
            exchange_restarts: 0,
            packet_drops: [0; PacketDrop::ALL.len()],
            lsa_drops: [0; LsaDrop::ALL.len()],
        }
    }
}

impl Counters {
    /// Goes on from what [`Self::iter`] gave in another version of this program, perhaps: what
    /// that did not count begins at zero, what this does not count is let go.
    pub(crate) fn restore(named: &BTreeMap<String, u64>) -> Self {
        let count = |name: &str| named.get(name).copied().unwrap_or(0);
        let mut packet_drops = [0; PacketDrop::ALL.len()];
        for (drops, reason) in packet_drops.iter_mut().zip(PacketDrop::ALL) {
            *drops = count(&format!("drop_{reason}"));
        }
        let mut lsa_drops = [0; LsaDrop::ALL.len()];
        for (drops, reason) in lsa_drops.iter_mut().zip(LsaDrop::ALL) {
            *drops = count(&format!("lsa_drop_{reason}"));
        }
        Self {
            packets_received: count("packets_received"),
            packets_sent: count("packets_sent"),
            hellos_sent: count("hellos_sent"),
            lsas_received: count("lsas_received"),
            lsas_installed: count("lsas_installed"),
            lsas_purged: count("lsas_purged"),
            originated: count("originated"),
            flushed: count("flushed"),
            self_originated_received: count("self_originated_received"),
            retransmitted: count("retransmitted"),
            stray_acknowledgements: count("stray_acknowledgements"),
            exchange_restarts: count("exchange_restarts"),
            packet_drops,
            lsa_drops,
        }
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&self, reason: PacketDrop) -> u64 {
        self.packet_drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// How many LSAs were discarded for this reason.
    pub fn discarded(&self, reason: LsaDrop) -> u64 {
        self.lsa_drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// Every counter by name; drops of packets are `drop_<reason>`, of LSAs `lsa_drop_<reason>`.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let plain = [
            ("packets_received", self.packets_received),
            ("packets_sent", self.packets_sent),
            ("hellos_sent", self.hellos_sent),
            ("lsas_received", self.lsas_received),
            ("lsas_installed", self.lsas_installed),
            ("lsas_purged", self.lsas_purged),
            ("originated", self.originated),
            ("flushed", self.flushed),
            ("self_originated_received", self.self_originated_received),
            ("retransmitted", self.retransmitted),
            ("stray_acknowledgements", self.stray_acknowledgements),
            ("exchange_restarts", self.exchange_restarts),
        ];
        let packets = PacketDrop::ALL
            .iter()
            .map(|&reason| (format!("drop_{reason}"), self.dropped(reason)));
        let lsas = LsaDrop::ALL
            .iter()
            .map(|&reason| (format!("lsa_drop_{reason}"), self.discarded(reason)));
        plain
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .chain(packets)
            .chain(lsas)
    }

    pub(crate) fn count_drop(&mut self, reason: PacketDrop) {
        if let Some(count) = self.packet_drops.get_mut(reason as usize) {
            *count += 1;
        }
    }

    pub(crate) fn count_discard(&mut self, reason: LsaDrop) {
        if let Some(count) = self.lsa_drops.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_goes_on_from_its_name() {
        let names = Counters::default();
        let numbered: BTreeMap<String, u64> = names
            .iter()
            .zip(1..)
            .map(|((name, _), n)| (name, n))
            .collect();
        let restored: BTreeMap<String, u64> = Counters::restore(&numbered).iter().collect();
        assert_eq!(restored, numbered);
    }
}
