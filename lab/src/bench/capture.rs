//! What passes on a link, as tcpdump has it: who acknowledged which LSAs, and when.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait::{self, Probe};

/// The length of pcap's file header, and of the header before each packet.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
const OSPF_HEADER: usize = 24;
const LSA_HEADER: usize = 20;
const ACKNOWLEDGEMENT: u8 = 5;
const AS_EXTERNAL: u8 = 5;

/// A capture of the OSPF packets of one link.
pub(super) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// The identity of an AS-external-LSA: its link state id and its router.
type External = [u8; 8];

impl Capture {
    /// Starts one and waits until it captures.
    pub(super) fn start(namespace: &Namespace, link: &str, directory: &Path) -> Result<Self> {
        let file = directory.join(format!("{link}.pcap"));
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the capture before");
            }
            Ok(()) | Err(_) => {}
        }
        // Longer ones would leave room for a few packets only in the kernel's ring.
        let mut command = Command::new("tcpdump");
        command
            .args([
                "-i",
                link,
                "-n",
                "-p",
                "-U",
                "--immediate-mode",
                "-s",
                "2048",
            ])
            .args([
                "-B",
                "16384",
                "--time-stamp-precision=nano",
                "-Z",
                "root",
                "-w",
            ])
            .arg(&file)
            .args(["ip", "proto", "89"]);
        let log = directory.join("tcpdump.log");
        let tcpdump = Process::spawn(namespace, "tcpdump", &log, &mut command)?;
        wait::until("tcpdump to capture", Duration::from_secs(10), || {
            let length = fs::metadata(&file).map_or(0, |metadata| metadata.len());
            let is_ready = length >= FILE_HEADER as u64;
            Ok(Probe::when(is_ready, (), || "no file yet".to_owned()))
        })?;
        Ok(Self { tcpdump, file })
    }

    /// When `from` had acknowledged `count` different AS-external-LSAs, once it has.
    pub(super) fn acknowledged(&self, from: Ipv4Addr, count: usize) -> Result<Option<Instant>> {
        let bytes = fs::read(&self.file).context("reading the capture")?;
        let Some(at) = acknowledged_at(&bytes, from, count)? else {
            return Ok(None);
        };
        // Both clocks run at the same rate over the seconds that this looks back.
        let (wall, now) = (SystemTime::now(), Instant::now());
        let back = wall
            .duration_since(SystemTime::UNIX_EPOCH + at)
            .context("a packet of the future")?;
        Ok(now.checked_sub(back))
    }

    /// Ends it.
    pub(super) fn end(mut self) -> Result<()> {
        self.tcpdump.signal(Signal::INT)?;
        self.tcpdump.wait(Duration::from_secs(5)).map(drop)
    }
}

/// The time of the packet by which `from` had acknowledged so many AS-external-LSAs.
fn acknowledged_at(capture: &[u8], from: Ipv4Addr, count: usize) -> Result<Option<Duration>> {
    let magic = capture.first_chunk::<4>().context("an empty capture")?;
    if u32::from_ne_bytes(*magic) != 0xa1b2_3c4d {
        bail!("a capture with another magic number than nanosecond pcap's: {magic:02x?}");
    }
    let mut acknowledged: HashSet<External> = HashSet::new();
    let mut rest = &capture[FILE_HEADER..];
    while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let field = |at: usize| -> u32 {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = usize::try_from(field(8)).context("a packet's length")?;
        // The last packet may be on its way into the file.
        let Some((packet, next)) = after.split_at_checked(length) else {
            break;
        };
        rest = next;
        acknowledged.extend(acknowledgements(packet, from));
        if acknowledged.len() >= count {
            return Ok(Some(Duration::new(field(0).into(), field(4))));
        }
    }
    Ok(None)
}

/// The AS-external-LSAs that an Ethernet frame acknowledges, if `from` sent it.
fn acknowledgements(frame: &[u8], from: Ipv4Addr) -> Vec<External> {
    let ip = frame.get(ETHERNET..).unwrap_or_default();
    let header_length = ip.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    let is_from = ip.get(12..16) == Some(&from.octets()[..]);
    let Some(ospf) = ip.get(header_length..).filter(|_| is_from) else {
        return Vec::new();
    };
    if ospf.get(1) != Some(&ACKNOWLEDGEMENT) {
        return Vec::new();
    }
    let length = ospf.get(2..4).map_or(0, |length| {
        usize::from(u16::from_be_bytes([length[0], length[1]]))
    });
    let body = ospf.get(OSPF_HEADER..length).unwrap_or_default();
    let (headers, _) = body.as_chunks::<LSA_HEADER>();
    headers
        .iter()
        .filter(|header| header[3] == AS_EXTERNAL)
        .filter_map(|header| header[4..].first_chunk::<8>().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTOR: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

    /// A frame with an acknowledgement of these types and link state ids.
    fn frame(source: Ipv4Addr, lsas: &[(u8, u8)]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        frame.extend([0x45; 1].iter().chain(&[0; 11]));
        frame.extend(source.octets());
        frame.extend([224, 0, 0, 5]);
        let length = u16::try_from(OSPF_HEADER + lsas.len() * LSA_HEADER).unwrap();
        frame.extend([2, ACKNOWLEDGEMENT]);
        frame.extend(length.to_be_bytes());
        frame.extend([0; OSPF_HEADER - 4]);
        for (ls_type, id) in lsas {
            frame.extend([0, 1, 2, *ls_type, 172, 16, 0, *id, 10, 0, 0, 1]);
            frame.extend([0; 8]);
        }
        frame
    }

    fn capture(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = 0xa1b2_3c4d_u32.to_ne_bytes().to_vec();
        bytes.extend([0; FILE_HEADER - 4]);
        for (second, frame) in frames {
            let length = u32::try_from(frame.len()).unwrap();
            for field in [*second, 7, length, length] {
                bytes.extend(field.to_ne_bytes());
            }
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn the_moment_of_the_last_acknowledgement_is_found() {
        let other = Ipv4Addr::new(10, 0, 1, 1);
        let bytes = capture(&[
            (1, frame(DIRECTOR, &[(5, 1), (1, 9), (5, 2)])),
            (2, frame(other, &[(5, 3)])),
            (3, frame(DIRECTOR, &[(5, 2), (5, 1)])),
            (4, frame(DIRECTOR, &[(5, 3)])),
        ]);
        let at = |count| acknowledged_at(&bytes, DIRECTOR, count).unwrap();
        assert_eq!(at(2), Some(Duration::new(1, 7)));
        assert_eq!(
            at(3),
            Some(Duration::new(4, 7)),
            "repetitions or others count"
        );
        assert_eq!(at(4), None);
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(
            acknowledged_at(cut, DIRECTOR, 3).unwrap(),
            None,
            "half a packet"
        );
    }
}
