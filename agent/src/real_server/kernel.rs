//! The kernel of a real server: what it has, and one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::{Handle, LinkGre, LinkIpIp, LinkUnspec, RouteMessageBuilder};

use super::error::RealServerError;
use super::observed::{Address, Conf, Interface, Observed, Place, Setting};
use super::step::Step;
use super::wanted::Device;
use super::{fou, nft, sockets};
use crate::dataplane::link::{Links, errno, failed, local};

/// Connections to the kernel, in the network namespace of the thread that opened them.
pub(super) struct Kernel {
    links: Links,
    handle: Handle,
    /// `/proc`.
    proc: PathBuf,
}

/// What need not be read where nobody asks for it. nf_tables is only readable by root, and a
/// question about either loads a module where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// The ports of GUE.
    pub(super) ports: bool,
    /// Our table with the MSS.
    pub(super) mss: bool,
}

impl Kernel {
    pub(super) fn connect() -> Result<Self, RealServerError> {
        Ok(Self {
            links: Links::connect()?,
            handle: crate::dataplane::link::connect()?,
            proc: PathBuf::from("/proc"),
        })
    }

    /// Which kernel this is, and which network of it.
    pub(super) fn place(&self) -> Result<Place, RealServerError> {
        let path = self.proc.join("thread-self/ns/net");
        let namespace = std::fs::read_link(&path);
        Ok(Place {
            boot_id: read(&self.proc.join("sys/kernel/random/boot_id"))?,
            namespace: namespace
                .map_err(|source| RealServerError::Read { path, source })?
                .display()
                .to_string(),
        })
    }

    pub(super) async fn observe(&self, parts: Parts) -> Result<Observed, RealServerError> {
        let mut observed = Observed {
            place: self.place()?,
            interfaces: self.interfaces().await?,
            gateways: self.gateways().await?,
            listening: sockets::read(&self.proc.join("thread-self/net"))?,
            ..Observed::default()
        };
        observed.all = self.conf("all")?.unwrap_or_default();
        if parts.ports {
            observed.ports = fou::read()?;
        }
        if parts.mss {
            observed.mss = nft::read()?;
        }
        Ok(observed)
    }

    async fn interfaces(&self) -> Result<BTreeMap<String, Interface>, RealServerError> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("read the interfaces".to_owned()))?;
        let addresses: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("read the addresses".to_owned()))?;
        let kinds: BTreeMap<u32, String> = links
            .iter()
            .filter_map(|link| Some((link.header.index, kind(link)?)))
            .collect();
        let mut interfaces = BTreeMap::new();
        for link in &links {
            let (Some(name), Some(conf)) = (name(link), self.conf_of(link)?) else {
                continue;
            };
            let mut interface = interface(link, &kinds);
            interface.conf = conf;
            let own = |it: &&AddressMessage| it.header.index == interface.index;
            interface.addresses = addresses.iter().filter(own).filter_map(address).collect();
            interfaces.insert(name.to_owned(), interface);
        }
        Ok(interfaces)
    }

    /// Nothing for an interface that has just gone.
    fn conf_of(&self, link: &LinkMessage) -> Result<Option<Conf>, RealServerError> {
        name(link).map_or(Ok(None), |name| self.conf(name))
    }

    fn conf(&self, folder: &str) -> Result<Option<Conf>, RealServerError> {
        let mut conf = Conf::default();
        for setting in Setting::ALL {
            let path = self.proc.join("sys").join(setting.key(folder));
            let text = match read(&path) {
                Err(RealServerError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    return Ok(None);
                }
                result => result?,
            };
            let Ok(value) = text.parse() else {
                return Err(RealServerError::Unreadable {
                    path,
                    expected: "a number",
                    found: text,
                });
            };
            conf.set(setting, value);
        }
        Ok(Some(conf))
    }

    async fn gateways(&self) -> Result<BTreeSet<Ipv4Addr>, RealServerError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(all)
            .execute()
            .try_collect()
            .await
            .map_err(failed("read the routes".to_owned()))?;
        let default = routes.iter().filter(|route| {
            route.header.destination_prefix_length == 0
                && route.header.kind == RouteType::Unicast
                && route.header.table == RouteHeader::RT_TABLE_MAIN
        });
        Ok(default.flat_map(|route| hops(&route.attributes)).collect())
    }

    pub(super) async fn execute(
        &self,
        step: &Step,
        observed: &Observed,
    ) -> Result<(), RealServerError> {
        match step {
            Step::Make { name, device } => self.make(name, *device).await,
            Step::SetSysctl { key, value, .. } | Step::RestoreSysctl { key, value } => {
                let path = self.proc.join("sys").join(key);
                std::fs::write(path, value.to_string()).map_err(|source| {
                    RealServerError::SetSysctl {
                        key: key.clone(),
                        value: *value,
                        source,
                    }
                })
            }
            Step::ClampMss(vips) => nft::write(vips),
            Step::OpenPort(port) => match fou::add(*port) {
                Err(RealServerError::NoModule { module, .. }) if modprobe(module) => {
                    fou::add(*port)
                }
                result => result,
            },
            Step::ClosePort(port) => fou::delete(*port),
            Step::Raise(name) => Ok(self.links.raise(name).await?),
            Step::Lower(name) => self.lower(name, observed).await,
            Step::AddVip { interface, vip } => Ok(self.links.add_vip(interface, *vip).await?),
            Step::RemoveVip { interface, vip } => {
                Ok(self.links.remove_vip(interface, *vip).await?)
            }
            Step::RemoveInterface(name) => Ok(self.links.remove(name).await?),
        }
    }

    /// A tunnel's interface is made by its module in every network, and is there already when
    /// the kernel, asked for one of that name, has loaded the module.
    async fn make(&self, name: &str, device: Device) -> Result<(), RealServerError> {
        let message = match device {
            Device::Loopback => return Ok(()),
            Device::Dummy => return Ok(self.links.add(name).await?),
            Device::Ipip => LinkIpIp::new(name).build(),
            Device::Gre => LinkGre::new(name).build(),
        };
        let add = || self.handle.link().add(message.clone()).execute();
        let mut result = add().await;
        let unknown = |result: &Result<(), rtnetlink::Error>| {
            result
                .as_ref()
                .is_err_and(|error| errno(error) == Some(rustix::io::Errno::OPNOTSUPP))
        };
        if unknown(&result) && modprobe(device.module()) {
            result = add().await;
        }
        match result {
            result if unknown(&result) => Err(RealServerError::NoModule {
                module: device.module(),
                what: format!("interface {name}"),
            }),
            Err(error) if errno(&error) == Some(rustix::io::Errno::EXIST) => Ok(()),
            result => Ok(result.map_err(failed(format!("make interface {name}")))?),
        }
    }

    async fn lower(&self, name: &str, observed: &Observed) -> Result<(), RealServerError> {
        let Some(interface) = observed.interfaces.get(name) else {
            return Ok(());
        };
        let message = LinkUnspec::new_with_index(interface.index).down().build();
        let lowered = self.handle.link().change(message).execute().await;
        Ok(lowered.map_err(failed(format!("set interface {name} down")))?)
    }
}

/// Loads a module, which takes a capability that the kernel's own loading does not.
fn modprobe(module: &str) -> bool {
    let mut command = Command::new("modprobe");
    command.args(["--quiet", module]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn read(path: &Path) -> Result<String, RealServerError> {
    let text = std::fs::read_to_string(path).map_err(|source| RealServerError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|it| match it {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn kind(link: &LinkMessage) -> Option<String> {
    let info = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    })?;
    info.iter().find_map(|it| match it {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// An interface without its addresses and settings; `kinds` are those of all interfaces.
fn interface(link: &LinkMessage, kinds: &BTreeMap<u32, String>) -> Interface {
    /// What takes all packets from its ports before their own ARP sees them.
    const MASTERS: [&str; 4] = ["bridge", "bond", "team", "openvswitch"];
    let flags = link.header.flags;
    let master = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Controller(index) => kinds.get(index),
        _ => None,
    });
    let port = master.is_some_and(|kind| MASTERS.contains(&kind.as_str()));
    let silent = flags.contains(LinkFlags::Loopback) || flags.contains(LinkFlags::Noarp);
    let mtu = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Interface {
        index: link.header.index,
        up: flags.contains(LinkFlags::Up),
        arp: !silent && !port,
        kind: kinds.get(&link.header.index).cloned(),
        mtu: mtu.unwrap_or_default(),
        ..Interface::default()
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    match local(message) {
        Some(IpAddr::V4(address)) => Some(Address {
            address,
            length: message.header.prefix_len,
            host_scope: message.header.scope == AddressScope::Host,
        }),
        Some(IpAddr::V6(_)) | None => None,
    }
}

/// The next hops of a route, one or many.
fn hops(attributes: &[RouteAttribute]) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => found.push(*gateway),
            RouteAttribute::MultiPath(all) => {
                found.extend(all.iter().flat_map(|hop| hops(&hop.attributes)));
            }
            _ => {}
        }
    }
    found
}
