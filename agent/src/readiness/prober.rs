//! Asks in ARP whether somebody else has a VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::future::join_all;
use isopath_api::ids::Vip;
use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::arp::{self, Mac};
use super::interfaces::{Interface, Interfaces};

/// `ETH_P_ARP` in network byte order, as `socket(2)` takes a packet socket's protocol.
const ARP: i32 = 0x0806_u16.to_be() as i32;

/// Probes that leave in one go, so that neither the socket's queue nor a switch that counts ARP
/// packets overflows.
const BURST: usize = 20;

/// How long the last answers are waited for. An answer comes from a kernel on the same link.
const LISTEN: Duration = Duration::from_millis(200);

/// How often and how fast it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// How often for each VIP: a probe can be lost.
    probes: u32,
    /// The time between two bursts, and between two probes for one VIP.
    gap: Duration,
}

impl Manner {
    /// Before a VIP is announced: three times within the 0.4 s that the checks take anyway.
    pub(super) const FIRST: Self = Self {
        probes: 3,
        gap: Duration::from_millis(50),
    };

    /// From time to time: once, at no more than 100 probes a second.
    pub(super) const AGAIN: Self = Self {
        probes: 1,
        gap: Duration::from_millis(200),
    };
}

/// Who answered for a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) interface: String,
    pub(super) mac: Mac,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// What was asked for.
    pub(super) vips: BTreeSet<Vip>,
    /// Those that somebody else answered for; of several answers the first interface's.
    pub(super) answers: BTreeMap<Vip, Answer>,
    /// The interfaces where it could not be asked, and why.
    pub(super) unasked: BTreeMap<String, io::Error>,
}

/// Asks for each of `vips` on every interface of `interfaces` that
/// [`Interfaces::to_ask`] names. Answers from this director's own interfaces do not count.
pub(super) async fn ask(
    interfaces: &Interfaces,
    vip_interface: &str,
    vips: BTreeSet<Vip>,
    manner: Manner,
) -> Asked {
    let to_ask = interfaces.to_ask(vip_interface);
    let asking = to_ask.iter().map(|(name, interface)| {
        let vips = &vips;
        async move {
            let answers = Asking::open(interface)?.ask(vips, manner).await?;
            Ok((name, answers))
        }
    });
    let mut asked = Asked::default();
    for (outcome, (name, _)) in join_all(asking).await.into_iter().zip(&to_ask) {
        match outcome {
            Ok((interface, answers)) => {
                for (vip, mac) in answers {
                    if !interfaces.owns(mac) {
                        let interface = interface.clone();
                        let answer = Answer { interface, mac };
                        asked.answers.entry(vip).or_insert(answer);
                    }
                }
            }
            Err(error) => {
                asked.unasked.insert(name.clone(), error);
            }
        }
    }
    asked.vips = vips;
    asked
}

/// A socket on one interface.
struct Asking {
    socket: AsyncFd<Socket>,
    own: Mac,
}

impl Asking {
    fn open(interface: &Interface) -> io::Result<Self> {
        let none = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let link: LinkAddr = interface.link.ok_or_else(none)?;
        let own = interface.mac().ok_or_else(none)?;
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW.nonblocking(),
            Some(Protocol::from(ARP)),
        )?;
        // The address comes from `getifaddrs`, so its protocol is 0: the socket keeps its own.
        bind(socket.as_raw_fd(), &link)?;
        #[expect(
            deprecated,
            reason = "the new constructor is unsafe because a type may give its descriptor away; \
                      this socket owns its own and keeps it"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, own })
    }

    async fn ask(&self, vips: &BTreeSet<Vip>, manner: Manner) -> io::Result<BTreeMap<Vip, Mac>> {
        let mut answers = BTreeMap::new();
        let all: Vec<Vip> = vips.iter().copied().collect();
        for _ in 0..manner.probes {
            for burst in all.chunks(BURST) {
                for vip in burst {
                    self.send(*vip)?;
                }
                self.listen(manner.gap, vips, &mut answers).await?;
            }
        }
        self.listen(LISTEN, vips, &mut answers).await?;
        Ok(answers)
    }

    fn send(&self, vip: Vip) -> io::Result<()> {
        match self.socket.get_ref().send(&arp::probe(self.own, vip.0)) {
            Ok(_) => Ok(()),
            // A full queue loses a probe as the link can; the next one asks again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes claims to any of `vips` for as long as `time`.
    async fn listen(
        &self,
        time: Duration,
        vips: &BTreeSet<Vip>,
        answers: &mut BTreeMap<Vip, Mac>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + time;
        let mut frame = [0; 128];
        loop {
            let Ok(ready) = timeout_at(deadline, self.socket.readable()).await else {
                return Ok(());
            };
            let Ok(length) = ready?.try_io(|socket| socket.get_ref().read(&mut frame)) else {
                continue;
            };
            let Some(claim) = arp::claim(frame.get(..length?).unwrap_or_default()) else {
                continue;
            };
            let vip = Vip(claim.address);
            if vips.contains(&vip) && claim.mac != self.own {
                answers.insert(vip, claim.mac);
            }
        }
    }
}
