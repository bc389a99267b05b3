//! BFD control packets, and a session that receives them.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use isopath_bfd::{Config, ControlPacket, Intervals, PACKET_LEN, Session, State};

use crate::epoch;

/// Bytes in the place of a control packet, then a session that receives packet after packet from
/// the rest of them.
pub fn bfd_packet(bytes: &[u8]) {
    if let Ok(packet) = ControlPacket::parse(bytes) {
        assert_eq!(ControlPacket::parse(&packet.emit()), Ok(packet));
    }
    let mut now = epoch();
    let interval = Duration::from_millis(50);
    let config = Config {
        discriminator: NonZeroU32::MIN,
        intervals: Intervals {
            min_tx: interval,
            min_rx: interval,
        },
        detect_multiplier: NonZeroU8::MIN.saturating_add(2),
        seed: 7,
    };
    let mut session = Session::new(config, now);
    for step in bytes.chunks(PACKET_LEN + 2) {
        let (packet, wait) = step.split_at(step.len().min(PACKET_LEN));
        let wait = wait
            .iter()
            .fold(0_u64, |wait, &byte| wait << 8 | u64::from(byte));
        let until = now + Duration::from_millis(wait);
        // A peer may ask for a packet each millisecond; more of them prove nothing.
        for _ in 0..200 {
            let Some(at) = session.poll_timeout().filter(|&at| at <= until) else {
                break;
            };
            // Late where the limit above cut the last wait short, as a busy machine is.
            now = now.max(at);
            session.handle_timeout(now);
            let next = session.poll_timeout();
            assert!(next.is_none_or(|next| next > now), "time does not go on");
            drain(&mut session);
        }
        now = until.max(now);
        if let Ok(packet) = ControlPacket::parse(packet) {
            session.handle_packet(now, &packet);
        }
        drain(&mut session);
    }
    if session.state() == State::Up {
        assert!(session.detection_time().is_some(), "Up without a deadline");
    }
    let snapshot = session.snapshot(now);
    assert!(
        Session::restore(snapshot, now).is_ok(),
        "its own snapshot is refused"
    );
}

fn drain(session: &mut Session) {
    for count in 0.. {
        let Some(bytes) = session.poll_transmit() else {
            break;
        };
        assert!(count < 2, "one input makes one packet and one Final");
        assert!(
            ControlPacket::parse(&bytes).is_ok(),
            "a packet of ours cannot be read"
        );
    }
    while session.poll_event().is_some() {}
}
