//! The VIPs' interface and its addresses, over rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt;
use isopath_api::ids::Vip;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkDummy, LinkUnspec};
use rustix::io::Errno;

use super::error::DataplaneError;
use super::observed::ObservedInterface;

/// A VIP is one host.
const HOST: u8 = 32;

/// The interfaces and addresses of this network namespace.
pub(crate) struct Links(Handle);

impl Links {
    /// Opens a socket. The task behind it ends when this is dropped.
    pub(crate) fn connect() -> Result<Self, DataplaneError> {
        Ok(Self(connect()?))
    }

    /// Reads those of the named interfaces that exist.
    pub(super) async fn observe(
        &self,
        names: BTreeSet<String>,
    ) -> Result<BTreeMap<String, ObservedInterface>, DataplaneError> {
        let mut interfaces = BTreeMap::new();
        for name in names {
            let Some(link) = self.find(&name).await? else {
                continue;
            };
            let mut interface = ObservedInterface {
                up: link.header.flags.contains(LinkFlags::Up),
                ..ObservedInterface::default()
            };
            for address in self.addresses(&name, link.header.index).await? {
                match local(&address) {
                    Some(IpAddr::V4(local)) if address.header.prefix_len == HOST => {
                        interface.vips.insert(Vip(local));
                    }
                    Some(IpAddr::V4(_)) => interface.others = true,
                    // IPv6 addresses are the kernel's own link-local ones.
                    Some(IpAddr::V6(_)) | None => {}
                }
            }
            interfaces.insert(name, interface);
        }
        Ok(interfaces)
    }

    /// Makes a dummy interface, up.
    pub(crate) async fn add(&self, name: &str) -> Result<(), DataplaneError> {
        let message = LinkDummy::new(name).up().build();
        match self.0.link().add(message).execute().await {
            Err(error) if errno(&error) == Some(Errno::OPNOTSUPP) => {
                Err(DataplaneError::NoDummy(name.to_owned()))
            }
            result => result.map_err(failed(format!("make the dummy interface {name}"))),
        }
    }

    /// Sets an interface up.
    pub(crate) async fn raise(&self, name: &str) -> Result<(), DataplaneError> {
        let index = self.index(name).await?;
        let message = LinkUnspec::new_with_index(index).up().build();
        let request = self.0.link().change(message);
        request
            .execute()
            .await
            .map_err(failed(format!("set interface {name} up")))
    }

    /// Deletes an interface.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), DataplaneError> {
        let index = self.index(name).await?;
        let request = self.0.link().del(index);
        request
            .execute()
            .await
            .map_err(failed(format!("delete interface {name}")))
    }

    /// Puts a VIP on an interface.
    pub(crate) async fn add_vip(&self, name: &str, vip: Vip) -> Result<(), DataplaneError> {
        let index = self.index(name).await?;
        let request = self.0.address().add(index, IpAddr::V4(vip.0), HOST);
        request
            .execute()
            .await
            .map_err(failed(format!("add VIP {vip} to interface {name}")))
    }

    /// Takes a VIP off an interface.
    pub(crate) async fn remove_vip(&self, name: &str, vip: Vip) -> Result<(), DataplaneError> {
        let index = self.index(name).await?;
        for address in self.addresses(name, index).await? {
            if local(&address) == Some(IpAddr::V4(vip.0)) && address.header.prefix_len == HOST {
                let request = self.0.address().del(address);
                request
                    .execute()
                    .await
                    .map_err(failed(format!("remove VIP {vip} from interface {name}")))?;
            }
        }
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, DataplaneError> {
        let request = self.0.link().get().match_name(name);
        match request.execute().try_next().await {
            Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(None),
            result => result.map_err(failed(format!("read interface {name}"))),
        }
    }

    async fn index(&self, name: &str) -> Result<u32, DataplaneError> {
        let link = self.find(name).await?;
        let gone = || DataplaneError::InterfaceGone(name.to_owned());
        Ok(link.ok_or_else(gone)?.header.index)
    }

    async fn addresses(
        &self,
        name: &str,
        index: u32,
    ) -> Result<Vec<AddressMessage>, DataplaneError> {
        let request = self.0.address().get().set_link_index_filter(index);
        let addresses = request.execute().try_collect().await;
        addresses.map_err(failed(format!("read the addresses of interface {name}")))
    }
}

/// Opens a socket to the kernel's routing side; the task behind it ends when the handle is
/// dropped.
pub(crate) fn connect() -> Result<Handle, DataplaneError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(DataplaneError::Open)?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(crate) fn failed(what: String) -> impl FnOnce(rtnetlink::Error) -> DataplaneError {
    move |source| DataplaneError::Link { what, source }
}

pub(crate) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw_os_error(
            message.raw_code().saturating_abs(),
        )),
        _ => None,
    }
}

/// The interface's own address; `IFA_ADDRESS` is the peer's where there is one.
pub(crate) fn local(address: &AddressMessage) -> Option<IpAddr> {
    address
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(local) => Some(*local),
            _ => None,
        })
}
