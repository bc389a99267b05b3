//! Directors whose real servers came and went in different orders: do they agree on where every
//! client belongs?
//!
//! Each director's agent reads a file of its own, which real servers are added to and removed
//! from at random until it says the same as everybody's. What the kernels have then is asked of
//! the kernels: the table of `mh` by the order and the weights of their real servers, and real
//! connections by where they arrive.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_api::config::Dataplane;
use isopath_ipvs::mh::Table;
use isopath_ipvs::{Destination, Family, Ipvs, ServiceKey};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use crate::director::{Director, Source};
use crate::plan;
use crate::report::say;
use crate::topology::{Lab, Spec};
use crate::wait::scaled;

use super::Lines;
use super::figures::{Figure, Series, Who};

const PORT: u16 = 7;

/// The real servers that all directors have in the end.
const REAL_SERVERS: u8 = 8;

/// Those that come and go beside them; nobody is there.
const PASSING: u8 = 4;

/// How many changes a director sees before the last one.
const CHANGES: usize = 6;

/// Clients whose connections are sent through each director.
const CLIENTS: u16 = 64;

/// How long a kernel may take to have what a file says: a real server is removed in two steps,
/// a second apart.
const SOON: Duration = Duration::from_secs(20);

pub(super) fn slots(name: &str, repetitions: usize, lines: &mut Lines) -> Result<()> {
    let spec = Spec {
        dataplane: Dataplane::Ipvs,
        real_servers: REAL_SERVERS,
        ..Spec::new(format!("{name}-slots"))
    };
    let mut slots = Series::new(Figure::Slots, Who::Isopath, repetitions);
    let mut clients = Series::new(Figure::Clients, Who::Isopath, repetitions);
    let done = Lab::with(spec, |lab| {
        for director in &mut lab.directors {
            director.write_config(&director.config(&Source::File(tables(&all()))))?;
            director.start_speaker()?;
            director.start_agent()?;
        }
        let listeners = listen(lab)?;
        for repetition in 0..repetitions {
            let kernels = histories(lab, repetition)?;
            let (count, notes) = differing_slots(&kernels);
            slots.values.push(count as f64);
            slots.notes.push(notes.clone());
            let differing = differing_clients(lab, &listeners)?;
            clients.values.push(differing as f64);
            say(format_args!(
                "slots: {notes}; {differing} of {CLIENTS} clients sent to different real servers"
            ));
        }
        Ok(())
    });
    lines.add([slots, clients]);
    done
}

/// The numbers of the real servers that all directors have in the end.
fn all() -> BTreeSet<u8> {
    (1..=REAL_SERVERS).collect()
}

/// A director's VIP and service with these real servers.
fn tables(servers: &BTreeSet<u8>) -> String {
    let mut text = format!(
        "[lvs]\nprofile = \"stateless\"\n[[vip]]\naddress = \"{vip}/32\"\n\
         [[service]]\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = {PORT}\n\
         check = {{ type = \"none\" }}\n",
        vip = plan::VIP
    );
    for number in servers {
        let address = plan::real_server(*number);
        text.push_str(&format!(
            "[[service.real_server]]\naddress = \"{address}\"\n"
        ));
    }
    text
}

/// Random numbers that are the same in each run (xorshift64*), from a seed above 0.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u8) -> u8 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56;
        u8::try_from(high % u64::from(limit)).unwrap_or(0)
    }
}

/// The sets that one director sees, one after the other; the last one is everybody's.
fn history(seed: u64) -> Vec<BTreeSet<u8>> {
    let mut random = Random(seed + 1);
    let mut servers = all();
    let mut sets = Vec::new();
    for _ in 0..CHANGES {
        // Several at a time, so that no set is far from any other.
        for _ in 0..3 {
            let number = random.below(REAL_SERVERS + PASSING) + 1;
            if !servers.remove(&number) || servers.is_empty() {
                servers.insert(number);
            }
        }
        sets.push(servers.clone());
    }
    sets.push(all());
    sets
}

/// Leads every director through a history of its own, all at the same time; returns what their
/// kernels have in the end.
fn histories(lab: &mut Lab, repetition: usize) -> Result<Vec<Vec<Destination>>> {
    std::thread::scope(|scope| {
        let directors = lab.directors.iter_mut();
        let threads: Vec<_> = directors
            .map(|director| {
                let seed = repetition as u64 * 1_000 + u64::from(director.number);
                scope.spawn(move || live_through(director, &history(seed)))
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Destination>>>| {
            let joined = thread.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

fn live_through(director: &mut Director, sets: &[BTreeSet<u8>]) -> Result<Vec<Destination>> {
    let mut last = Vec::new();
    for set in sets {
        let text = director.config(&Source::File(tables(set)));
        director.write_config(&text)?;
        director
            .agent()?
            .signal(rustix::process::Signal::HUP)
            .context("telling the agent")?;
        let wanted = set
            .iter()
            .map(|number| plan::real_server(*number))
            .collect();
        last = wait_for(director, &wanted)
            .with_context(|| format!("{} with {} real servers", director.name, set.len()))?;
    }
    Ok(last)
}

/// Waits until the director's kernel has these real servers and no others, in its own order.
fn wait_for(director: &Director, wanted: &BTreeSet<Ipv4Addr>) -> Result<Vec<Destination>> {
    let key = ServiceKey::tcp((plan::VIP.0, PORT).into());
    let watch = || -> Result<Vec<Destination>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?;
        runtime.block_on(async {
            let ipvs = Ipvs::connect().await.context("connecting to IPVS")?;
            let (started, limit) = (Instant::now(), scaled(SOON));
            loop {
                let found = ipvs.destinations(&key).await?;
                let addresses = found.iter().filter_map(|it| match it.spec.address.ip() {
                    std::net::IpAddr::V4(address) => Some(address),
                    std::net::IpAddr::V6(_) => None,
                });
                let addresses: BTreeSet<_> = addresses.collect();
                let in_use = found.iter().all(|it| it.spec.weight > 0);
                if addresses == *wanted && in_use {
                    return Ok(found);
                }
                ensure!(
                    started.elapsed() < limit,
                    "not within {limit:?}: the kernel has {addresses:?}"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    director.namespace().enter(watch)?
}

/// The greatest number of slots in which two of these kernels differ, and that in words.
fn differing_slots(kernels: &[Vec<Destination>]) -> (usize, String) {
    let tables: Vec<Table> = kernels.iter().map(|kernel| table(kernel)).collect();
    let pairs = tables.iter().enumerate().flat_map(|(index, one)| {
        let others = tables[..index].iter();
        others.map(|other| one.differing_slots(other))
    });
    let count = pairs.max().unwrap_or(0);
    let slots = tables.first().map_or(0, Table::size);
    let note = format!(
        "{count} of {slots} slots differ among {} tables",
        tables.len()
    );
    (count, note)
}

/// The table that a kernel has built from this list: all weights are 1, and were never another.
fn table(kernel: &[Destination]) -> Table {
    let servers = kernel.iter().map(|it| (it.spec.address, it.spec.weight));
    Table::new(Family::V4, &servers.collect::<Vec<_>>())
}

/// One listener in each real server.
fn listen(lab: &Lab) -> Result<Vec<TcpListener>> {
    let listen = |namespace: &crate::netns::Namespace| -> Result<TcpListener> {
        let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let servers = lab.real_servers.iter();
    servers
        .map(|server| {
            listen(server.namespace()).with_context(|| format!("listening in {}", server.name()))
        })
        .collect()
}

/// How many clients any two directors send to different real servers: the same addresses and
/// ports go through each director in turn.
fn differing_clients(lab: &Lab, listeners: &[TcpListener]) -> Result<usize> {
    let mut arrivals: Vec<Vec<usize>> = Vec::new();
    for director in &lab.directors {
        let (vip, hop) = (plan::VIP, director.next_hop());
        let route = format!("route replace {vip}/32 via {hop}");
        lab.switch.namespace().ip([route])?;
        let mut of_this = Vec::new();
        for client in 0..CLIENTS {
            let from = SocketAddrV4::new(plan::CLIENT, 20_000 + client * 7);
            let connect = || connect(from, SocketAddrV4::new(vip.0, PORT));
            let stream = lab.client.enter(connect)?;
            let stream = stream.with_context(|| format!("{from} through {}", director.name))?;
            of_this.push(arrived(listeners, from)?);
            // The same port is wanted again: the connection ends by a reset.
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
        arrivals.push(of_this);
    }
    let first = arrivals.first().context("there is no director")?;
    let differs = |client: &usize| arrivals.iter().any(|it| it[*client] != first[*client]);
    Ok((0..first.len()).filter(differs).count())
}

fn connect(from: SocketAddrV4, to: SocketAddrV4) -> Result<TcpStream> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

/// Which listener this client has come to.
fn arrived(listeners: &[TcpListener], from: SocketAddrV4) -> Result<usize> {
    let deadline = Instant::now() + scaled(Duration::from_secs(2));
    loop {
        for (index, listener) in listeners.iter().enumerate() {
            match listener.accept() {
                Ok((_, peer)) if peer == SocketAddr::V4(from) => return Ok(index),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accepting"),
            }
        }
        if Instant::now() >= deadline {
            bail!("{from} has come to no real server");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_differ_and_end_alike() {
        let histories: Vec<_> = (1..=4).map(history).collect();
        for (index, one) in histories.iter().enumerate() {
            assert_eq!(one.last(), Some(&all()));
            assert!(one.iter().all(|set| !set.is_empty()));
            let others = histories[..index].iter();
            assert!(
                others
                    .clone()
                    .all(|other| other[..CHANGES] != one[..CHANGES])
            );
        }
        let removed = histories.iter().flatten().any(|set| !set.contains(&1));
        assert!(removed, "the first real server never left");
    }
}
