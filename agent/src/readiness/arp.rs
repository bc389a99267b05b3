//! ARP for IPv4 over Ethernet (RFC 826), as much of it as asking for an address takes: the probe
//! that RFC 5227 §2.1.1 sends, and the packets by which somebody says that the address is theirs.

use std::fmt;
use std::net::Ipv4Addr;

/// The length of a probe with its Ethernet header.
pub(super) const FRAME: usize = 42;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const HARDWARE_ETHERNET: [u8; 2] = [0, 1];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// The address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mac(pub [u8; 6]);

impl Mac {
    const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Somebody's word that an address is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) address: Ipv4Addr,
    pub(super) mac: Mac,
}

/// A frame that asks all who has `address`. Its sender's protocol address is 0, so nobody's ARP
/// cache learns anything from it.
pub(super) fn probe(own: Mac, address: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let parts: [&[u8]; 11] = [
        &Mac::BROADCAST.0,
        &own.0,
        &ETHERTYPE_ARP,
        &HARDWARE_ETHERNET,
        &ETHERTYPE_IPV4,
        &[6, 4],
        &REQUEST,
        &own.0,
        &[0; 4],
        &[0; 6],
        &address.octets(),
    ];
    let bytes = parts.into_iter().flatten();
    for (place, byte) in frame.iter_mut().zip(bytes) {
        *place = *byte;
    }
    frame
}

/// What a frame claims: a request counts like a reply, because its sender names an address as its
/// own in it (RFC 5227 §1.1). A probe, whose sender's address is 0, claims nothing.
pub(super) fn claim(frame: &[u8]) -> Option<Claim> {
    let packet = frame.get(14..FRAME)?;
    let ethernet_ipv4 = frame.get(12..14)? == ETHERTYPE_ARP
        && packet.get(0..2)? == HARDWARE_ETHERNET
        && packet.get(2..4)? == ETHERTYPE_IPV4
        && packet.get(4..6)? == [6, 4];
    let operation = packet.get(6..8)?;
    if !ethernet_ipv4 || (operation != REQUEST && operation != REPLY) {
        return None;
    }
    let mac: [u8; 6] = packet.get(8..14)?.try_into().ok()?;
    let address: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    let address = Ipv4Addr::from(address);
    (!address.is_unspecified()).then_some(Claim {
        address,
        mac: Mac(mac),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
    const OTHER: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 101, 100);

    /// As `arping -D -c 1 192.168.101.100` sends it, and a Linux host without arp_ignore answers.
    const PROBE: &str = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 \
                         020000000001 00000000 000000000000 c0a86564";
    const REPLY: &str = "020000000001 02000000000b 0806 0001 0800 06 04 0002 \
                         02000000000b c0a86564 020000000001 00000000";
    /// A real server without arp_announce asks for its gateway with the VIP as its own address.
    const REQUEST: &str = "ffffffffffff 02000000000b 0806 0001 0800 06 04 0001 \
                           02000000000b c0a86564 000000000000 c0a86501";

    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|digit| u8::try_from(digit).unwrap())
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn a_probe_asks_everybody_and_says_nothing_of_its_sender() {
        assert_eq!(probe(OWN, VIP).as_slice(), bytes(PROBE));
    }

    #[test]
    fn a_reply_and_a_request_from_the_address_claim_it_and_a_probe_does_not() {
        let claimed = Some(Claim {
            address: VIP,
            mac: OTHER,
        });
        assert_eq!(claim(&bytes(REPLY)), claimed);
        assert_eq!(claim(&bytes(REQUEST)), claimed);
        assert_eq!(claim(&bytes(PROBE)), None);
        // A frame that the network card has filled up to the shortest length.
        let mut padded = bytes(REPLY);
        padded.resize(60, 0);
        assert_eq!(claim(&padded), claimed);
    }

    #[test]
    fn what_is_no_arp_of_ethernet_and_ipv4_claims_nothing() {
        let good = bytes(REPLY);
        for length in 0..FRAME {
            assert_eq!(claim(&good[..length]), None, "cut to {length} bytes");
        }
        // The EtherType, both address types, both lengths, and the operation.
        for index in 12..22 {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            assert_eq!(claim(&bad), None, "byte {index} changed");
        }
    }

    #[test]
    fn a_mac_is_written_as_ip_link_writes_it() {
        assert_eq!(OTHER.to_string(), "02:00:00:00:00:0b");
    }
}
