//! Makes the fuzz targets' corpus from captures: `corpus DIR CAPTURE.pcap...`.
//!
//! `scripts/fuzz-corpus` makes the captures and runs this.
#![expect(
    clippy::unwrap_used,
    reason = "a tool for those who work on the speaker, which may stop where a capture is odd"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isopath_ospf::packet::{Body, HEADER_LEN, Lsa, Packet};
use isopath_ospf::{
    AreaId, AreaType, Config, InterfaceConfig, InterfaceId, LinkState, NetworkType, Router,
    RouterId,
};

/// The most packets of one sender and type; each of another length than the others.
const MOST: usize = 10;
const PCAP_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET_HEADER: usize = 14;
const OSPF: u8 = 89;
const UDP: u8 = 17;
const BFD_PORT: u16 = 3784;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let directory = arguments.next().expect("usage: corpus DIR CAPTURE.pcap...");
    let mut corpus = Corpus {
        directory,
        ops: Vec::new(),
        seen: BTreeMap::new(),
    };
    for capture in arguments {
        for frame in frames(&fs::read(&capture).unwrap()) {
            corpus.frame(frame);
        }
    }
    let ops = std::mem::take(&mut corpus.ops);
    for (number, ops) in ops.chunks(40).take(12).enumerate() {
        corpus.write("ospf_ops", &format!("captured-{number}"), &ops.concat());
    }
    corpus.write("handover", "new", &snapshot());
}

/// The frames of a capture in pcap's classic format, as written on this machine.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    bytes = &bytes[PCAP_HEADER..];
    while bytes.len() >= RECORD_HEADER {
        let length = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
        let end = RECORD_HEADER + usize::try_from(length).unwrap();
        frames.push(&bytes[RECORD_HEADER..end]);
        bytes = &bytes[end..];
    }
    frames
}

struct Corpus {
    directory: PathBuf,
    /// Captured bodies as operations.
    ops: Vec<Vec<u8>>,
    /// The lengths that there are, by sender and kind.
    seen: BTreeMap<(u8, String), Vec<usize>>,
}

impl Corpus {
    fn frame(&mut self, frame: &[u8]) {
        let ip = &frame[ETHERNET_HEADER..];
        let header = usize::from(ip[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let (sender, payload) = (ip[15], &ip[header..length]);
        if ip[9] == OSPF {
            self.ospf(sender, payload);
        } else if ip[9] == UDP && payload[2..4] == BFD_PORT.to_be_bytes() {
            self.keep(
                "bfd_packet",
                sender,
                &format!("{:02x}", payload[9]),
                &payload[8..],
            );
        }
    }

    fn ospf(&mut self, sender: u8, payload: &[u8]) {
        let kind = format!("type{}-auth{}", payload[1], payload[15]);
        if !self.keep("ospf_packet", sender, &kind, payload) {
            return;
        }
        let Ok(packet) = Packet::decode(payload) else {
            return;
        };
        let length = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
        let body = &payload[HEADER_LEN..length];
        if let Ok(size) = u8::try_from(body.len()) {
            // A Hello that lists us, the body, a second.
            let mut ops = vec![2, 0, 0, 1, 0, payload[1] - 1, size];
            ops.extend(body);
            ops.extend([9, 0, 50]);
            self.ops.push(ops);
        }
        if let Body::Update(lsas) = packet.body {
            for lsa in lsas {
                self.lsa(sender, &lsa);
            }
        }
    }

    fn lsa(&mut self, sender: u8, lsa: &Lsa) {
        let header = lsa.header();
        let ls_type = u8::from(header.key.ls_type);
        let mut bytes = vec![ls_type, header.options.0];
        bytes.extend(header.sequence.to_be_bytes());
        bytes.extend(header.key.link_state_id.octets());
        bytes.extend(header.age.to_be_bytes());
        bytes.extend(lsa.body());
        self.keep("ospf_lsa", sender, &format!("type{ls_type}"), &bytes);
    }

    /// Keeps what is of another length than all of its kind; says whether it did.
    fn keep(&mut self, target: &str, sender: u8, kind: &str, bytes: &[u8]) -> bool {
        let lengths = self
            .seen
            .entry((sender, format!("{target}-{kind}")))
            .or_default();
        if lengths.contains(&bytes.len()) || lengths.len() >= MOST {
            return false;
        }
        lengths.push(bytes.len());
        let peer = if sender.is_multiple_of(2) {
            "bird"
        } else {
            "frr"
        };
        self.write(target, &format!("{peer}-{kind}-{}", bytes.len()), bytes);
        true
    }

    fn write(&self, target: &str, name: &str, bytes: &[u8]) {
        let directory = Path::new(&self.directory).join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes).unwrap();
    }
}

/// What a router hands over that has just begun to talk.
fn snapshot() -> Vec<u8> {
    let now = Instant::now();
    let interface = |network| InterfaceConfig {
        network,
        hello_interval: 1,
        dead_interval: 4,
        retransmit_interval: Duration::from_secs(1),
        cost: 10,
        peer_min_arrival: Duration::from_secs(1),
        advertise_mtu: None,
    };
    let config = Config {
        router_id: RouterId([10, 0, 0, 100].into()),
        area: AreaId([0; 4].into()),
        area_type: AreaType::Normal,
        interfaces: vec![
            interface(NetworkType::PointToPoint),
            interface(NetworkType::Broadcast),
        ],
        is_asbr: false,
        sequence_hint: None,
    };
    let mut router = Router::new(config, 7, now).unwrap();
    let link = LinkState {
        address: [10, 1, 0, 100].into(),
        prefix_len: 24,
        mtu: 1500,
        index: 1,
    };
    router.handle_interface(now, InterfaceId(0), Some(link));
    serde_json::to_vec(&router.snapshot(now)).unwrap()
}
