//! The BFD control packet (RFC 5880 §4.1).

use std::num::NonZeroU32;
use std::time::Duration;

use crate::state::{Diagnostic, State};

/// The length of a control packet without an authentication section, the only kind sent here.
pub const PACKET_LEN: usize = 24;

const VERSION: u8 = 1;
const FLAG_POLL: u8 = 0x20;
const FLAG_FINAL: u8 = 0x10;
const FLAG_CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const FLAG_AUTHENTICATION: u8 = 0x04;
const FLAG_DEMAND: u8 = 0x02;
const FLAG_MULTIPOINT: u8 = 0x01;

/// A control packet that passed the checks of RFC 5880 §6.8.6 which need no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's session state.
    pub state: State,
    /// The sender wants its parameters confirmed by a packet with Final set.
    pub poll: bool,
    /// The sender answers a Poll.
    pub final_: bool,
    /// The sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// The sender asks the receiver to stop sending periodically while both are Up.
    pub demand: bool,
    /// Packets in a row that may be missed; never 0.
    pub detect_multiplier: u8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's name for it; 0 while the sender does not know it.
    pub your_discriminator: u32,
    /// The sender's Desired Min TX Interval.
    pub desired_min_tx: Duration,
    /// The sender's Required Min RX Interval; zero asks for no periodic packets at all.
    pub required_min_rx: Duration,
}

/// Why a received packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Shorter than its own Length field, or than the mandatory section.
    #[error("packet shorter than a control packet")]
    TooShort,
    /// The Length field is below what the A bit demands.
    #[error("bad length field")]
    BadLength,
    /// Not version 1.
    #[error("unknown version")]
    Version,
    /// Detect Mult is 0.
    #[error("detect multiplier 0")]
    ZeroMultiplier,
    /// The Multipoint bit is set.
    #[error("multipoint bit set")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("my discriminator 0")]
    ZeroMyDiscriminator,
    /// Your Discriminator is 0 in a state in which the sender must know it.
    #[error("your discriminator 0 in state Init or Up")]
    ZeroYourDiscriminator,
    /// An authentication section, while no session authenticates.
    #[error("authentication present but not in use")]
    Authentication,
}

impl ControlPacket {
    /// Reads the payload of a UDP datagram. Bytes after the packet's own length are ignored.
    ///
    /// # Errors
    /// The first check of RFC 5880 §6.8.6, in its order, that the packet fails.
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        let bytes: &[u8; PACKET_LEN] = payload.first_chunk().ok_or(DropReason::TooShort)?;
        let [first, flags, detect_multiplier, length, rest @ ..] = bytes;
        if first >> 5 != VERSION {
            return Err(DropReason::Version);
        }
        let authenticated = flags & FLAG_AUTHENTICATION != 0;
        let shortest = if authenticated {
            PACKET_LEN + 2
        } else {
            PACKET_LEN
        };
        if usize::from(*length) < shortest {
            return Err(DropReason::BadLength);
        }
        if usize::from(*length) > payload.len() {
            return Err(DropReason::TooShort);
        }
        if *detect_multiplier == 0 {
            return Err(DropReason::ZeroMultiplier);
        }
        if flags & FLAG_MULTIPOINT != 0 {
            return Err(DropReason::Multipoint);
        }
        let word = |at: usize| {
            let field = rest.iter().skip(at).take(4);
            field.fold(0, |word, byte| (word << 8) | u32::from(*byte))
        };
        let my_discriminator = NonZeroU32::new(word(0)).ok_or(DropReason::ZeroMyDiscriminator)?;
        let your_discriminator = word(4);
        let state = State::from_bits(flags >> 6);
        if your_discriminator == 0 && matches!(state, State::Init | State::Up) {
            return Err(DropReason::ZeroYourDiscriminator);
        }
        if authenticated {
            return Err(DropReason::Authentication);
        }
        Ok(Self {
            diagnostic: Diagnostic::from_code(first & 0x1f),
            state,
            poll: flags & FLAG_POLL != 0,
            final_: flags & FLAG_FINAL != 0,
            control_plane_independent: flags & FLAG_CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & FLAG_DEMAND != 0,
            detect_multiplier: *detect_multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: Duration::from_micros(u64::from(word(8))),
            required_min_rx: Duration::from_micros(u64::from(word(12))),
        })
    }

    /// The packet as bytes. Required Min Echo RX Interval is always 0: echo is not supported.
    pub fn emit(&self) -> [u8; PACKET_LEN] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = self.state.bits() << 6
            | flag(self.poll, FLAG_POLL)
            | flag(self.final_, FLAG_FINAL)
            | flag(
                self.control_plane_independent,
                FLAG_CONTROL_PLANE_INDEPENDENT,
            )
            | flag(self.demand, FLAG_DEMAND);
        let mut bytes = [0; PACKET_LEN];
        let head = [
            VERSION << 5 | self.diagnostic.code(),
            flags,
            self.detect_multiplier,
            24,
        ];
        let words = [
            u32::from_be_bytes(head),
            self.my_discriminator.get(),
            self.your_discriminator,
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            0,
        ];
        for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// The field's microseconds; a time beyond 71 minutes is written as the longest there is.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// FRR 8.4.4 bfdd to BIRD, just Up: 100 ms both ways, multiplier 3, echo every 50 ms offered.
    const CAPTURED: [u8; PACKET_LEN] = [
        0x20, 0xe0, 0x03, 0x18, 0xec, 0xac, 0x62, 0x8c, 0x98, 0xf3, 0x4a, 0xa8, 0x00, 0x01, 0x86,
        0xa0, 0x00, 0x01, 0x86, 0xa0, 0x00, 0x00, 0xc3, 0x50,
    ];

    /// BIRD 2.0.12's first packet: it does not know the peer yet.
    const CAPTURED_DOWN: [u8; PACKET_LEN] = [
        0x20, 0x40, 0x05, 0x18, 0x98, 0xf3, 0x4a, 0xa8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x42,
        0x40, 0x00, 0x01, 0x86, 0xa0, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn captured_packets_are_read_and_written_back() {
        let frr = ControlPacket {
            diagnostic: Diagnostic::None,
            state: State::Up,
            poll: true,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: NonZeroU32::new(0xecac_628c).unwrap(),
            your_discriminator: 0x98f3_4aa8,
            desired_min_tx: Duration::from_millis(100),
            required_min_rx: Duration::from_millis(100),
        };
        let bird = ControlPacket {
            state: State::Down,
            poll: false,
            detect_multiplier: 5,
            my_discriminator: NonZeroU32::new(0x98f3_4aa8).unwrap(),
            your_discriminator: 0,
            desired_min_tx: Duration::from_secs(1),
            ..frr
        };
        for (captured, packet) in [(CAPTURED, frr), (CAPTURED_DOWN, bird)] {
            assert_eq!(ControlPacket::parse(&captured), Ok(packet));
            assert_eq!(packet.emit()[..20], captured[..20]);
            assert_eq!(packet.emit()[20..], [0; 4], "echo is never offered");
        }
    }

    #[test]
    fn each_check_has_its_drop_reason() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(&str, Spoil, DropReason); 12] = [
            ("empty", Vec::clear, DropReason::TooShort),
            ("23 bytes", |p| p.truncate(23), DropReason::TooShort),
            ("version 0", |p| p[0] &= 0x1f, DropReason::Version),
            ("version 2", |p| p[0] = 0x40, DropReason::Version),
            ("length 23", |p| p[3] = 23, DropReason::BadLength),
            (
                "length 24 with A",
                |p| p[1] |= FLAG_AUTHENTICATION,
                DropReason::BadLength,
            ),
            ("length over", |p| p[3] = 25, DropReason::TooShort),
            ("multiplier 0", |p| p[2] = 0, DropReason::ZeroMultiplier),
            ("M bit", |p| p[1] |= FLAG_MULTIPOINT, DropReason::Multipoint),
            (
                "my discriminator 0",
                |p| p[4..8].fill(0),
                DropReason::ZeroMyDiscriminator,
            ),
            (
                "your discriminator 0 while Up",
                |p| p[8..12].fill(0),
                DropReason::ZeroYourDiscriminator,
            ),
            (
                "simple password",
                |p| {
                    p[1] |= FLAG_AUTHENTICATION;
                    p[3] = 28;
                    p.extend([1, 4, 1, b'x']);
                },
                DropReason::Authentication,
            ),
        ];
        for (name, spoil, reason) in cases {
            let mut bytes = CAPTURED.to_vec();
            spoil(&mut bytes);
            assert_eq!(ControlPacket::parse(&bytes), Err(reason), "{name}");
        }
    }

    #[test]
    fn bytes_after_the_packet_are_ignored() {
        let mut bytes = CAPTURED.to_vec();
        bytes.extend([0xff; 40]);
        assert_eq!(
            ControlPacket::parse(&bytes),
            ControlPacket::parse(&CAPTURED)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_what_is_read_is_written_back(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            plausible in any::<bool>(),
        ) {
            if plausible && bytes.len() >= PACKET_LEN {
                bytes[0] = 0x20 | (bytes[0] & 0x1f);
                bytes[3] = 24;
            }
            if let Ok(packet) = ControlPacket::parse(&bytes) {
                let written = packet.emit();
                prop_assert_eq!(ControlPacket::parse(&written), Ok(packet));
                // All but Required Min Echo RX and what may follow it, which are not kept.
                bytes[3] = written[3];
                prop_assert_eq!(&written[..20], &bytes[..20]);
            }
        }
    }
}
