//! What passes an interface, by tcpdump: OSPF and BFD.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait::{self, Probe};

/// OSPF's IP protocol number.
const OSPF: u8 = 89;
/// UDP's.
const UDP: u8 = 17;
/// How long tcpdump may take to start and to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// A captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// When, since 1970, on the machine's wall clock.
    pub at: Duration,
    /// The source.
    pub source: Ipv4Addr,
    /// The destination.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub payload: Payload,
}

/// What a captured packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// An OSPF packet, its header first.
    Ospf(Vec<u8>),
    /// A BFD control packet.
    Bfd(Vec<u8>),
}

impl Capture {
    /// Starts to capture; packets after this are never missed.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn start(namespace: &Namespace, interface: &str, directory: &Path) -> Result<Self> {
        let file = directory.join(format!("{interface}.pcap"));
        let log = directory.join(format!("{interface}.tcpdump.log"));
        let mut command = Command::new("tcpdump");
        command
            // Every packet is in the file when it is captured, and root may write there.
            .args([
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
                "-n",
                "-i",
                interface,
            ])
            .arg("-w")
            .arg(&file)
            .arg("ip proto 89 or udp dst port 3784");
        let what = format!("tcpdump on {interface}");
        let mut tcpdump = Process::spawn(namespace, what, &log, &mut command)?;
        wait::until("tcpdump to listen", LIMIT, || {
            tcpdump.expect_running()?;
            let said = tcpdump.log_tail(5);
            Ok(Probe::when(said.contains("listening on"), (), || said))
        })?;
        Ok(Self { tcpdump, file })
    }

    /// Ends it; what was captured, in order.
    ///
    /// # Errors
    /// tcpdump failed or its file cannot be read.
    pub fn finish(self) -> Result<Vec<Captured>> {
        let status = self.tcpdump.stop(LIMIT)?;
        ensure!(status.success(), "tcpdump ended with {status}");
        let bytes = fs::read(&self.file);
        let bytes = bytes.with_context(|| format!("reading {}", self.file.display()))?;
        parse(&bytes).with_context(|| format!("in {}", self.file.display()))
    }
}

/// Reads a file of the format of libpcap with microseconds, written on this machine.
fn parse(file: &[u8]) -> Result<Vec<Captured>> {
    let (header, mut rest) = file.split_at_checked(24).context("no file header")?;
    ensure!(
        u32_at(header, 0)? == 0xa1b2_c3d4,
        "not a capture in microseconds"
    );
    ensure!(u32_at(header, 20)? == 1, "not a capture of Ethernet");
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (record, after) = rest.split_at_checked(16).context("half a record")?;
        let seconds = Duration::from_secs(u32_at(record, 0)?.into());
        let at = seconds + Duration::from_micros(u32_at(record, 4)?.into());
        let length = usize::try_from(u32_at(record, 8)?)?;
        let (frame, after) = after.split_at_checked(length).context("half a packet")?;
        packets.extend(ip_packet(at, frame)?);
        rest = after;
    }
    Ok(packets)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u32::from_ne_bytes(*field.context("a field is cut")?))
}

/// The IP packet in an Ethernet frame; nothing for a later fragment of one.
fn ip_packet(at: Duration, frame: &[u8]) -> Result<Option<Captured>> {
    let packet = frame.get(14..).context("half a frame")?;
    let (header, _) = packet.split_first_chunk::<20>().context("no IP header")?;
    let address = |at: usize| -> Ipv4Addr {
        [header[at], header[at + 1], header[at + 2], header[at + 3]].into()
    };
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if fragment != 0 {
        return Ok(None);
    }
    let whole = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let start = usize::from(header[0] & 0x0f) * 4;
    let payload = packet.get(start..whole).context("half an IP packet")?;
    let payload = match header[9] {
        OSPF => Payload::Ospf(payload.to_vec()),
        UDP => Payload::Bfd(payload.get(8..).context("no UDP header")?.to_vec()),
        other => bail!("protocol {other} passed the filter"),
    };
    Ok(Some(Captured {
        at,
        source: address(12),
        destination: address(16),
        payload,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_in_its_frame() {
        let mut file = vec![0; 24];
        file[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
        file[20..].copy_from_slice(&1_u32.to_ne_bytes());
        for field in [7_u32, 5, 14 + 24 + 2, 60] {
            file.extend(field.to_ne_bytes());
        }
        file.extend([0; 14]);
        file.extend([0x45, 0xc0, 0, 24, 0, 1, 0, 0, 1, 89, 0, 0]);
        file.extend([10, 0, 1, 2, 224, 0, 0, 5, 2, 1, 0, 44]);
        // Ethernet's padding.
        file.extend([0, 0]);
        let packets = parse(&file).unwrap();
        let expected = Captured {
            at: Duration::from_micros(7_000_005),
            source: Ipv4Addr::new(10, 0, 1, 2),
            destination: Ipv4Addr::new(224, 0, 0, 5),
            payload: Payload::Ospf(vec![2, 1, 0, 44]),
        };
        assert_eq!(packets, [expected]);
        assert!(parse(&file[..file.len() - 1]).is_err(), "half a packet");
    }
}
