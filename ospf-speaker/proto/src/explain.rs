//! What was wrong with a dropped packet, in words: what was found in place of what.

use crate::config::AreaType;
use crate::counters::PacketDrop;
use crate::ids::InterfaceId;
use crate::packet::{DbDesc, Header, Hello};
use crate::router::Router;

impl Router {
    pub(crate) fn explain_header(&self, reason: PacketDrop, header: &Header) -> String {
        if reason == PacketDrop::WrongArea {
            format!("area {} in place of {}", header.area, self.config.area)
        } else {
            reason.to_string()
        }
    }

    pub(crate) fn explain_hello(
        &self,
        id: InterfaceId,
        reason: PacketDrop,
        hello: &Hello,
    ) -> String {
        let Some(interface) = self.interfaces.get(id.0) else {
            return reason.to_string();
        };
        let settings = &interface.settings;
        if reason == PacketDrop::HelloInterval {
            let (found, ours) = (hello.hello_interval, settings.hello_interval);
            format!("hello interval {found} s in place of {ours} s")
        } else if reason == PacketDrop::DeadInterval {
            let (found, ours) = (hello.dead_interval, settings.dead_interval);
            format!("dead interval {found} s in place of {ours} s")
        } else if let (PacketDrop::NetworkMask, Some(link)) = (reason, interface.link) {
            format!(
                "network mask {} in place of {}",
                hello.network_mask,
                link.mask()
            )
        } else if reason == PacketDrop::AreaOptions {
            let ours = match self.config.area_type {
                AreaType::Normal => "a normal area",
                AreaType::Stub => "a stub area",
                AreaType::Nssa => "an NSSA",
            };
            format!(
                "{:?} (E 0x02, N 0x08) where we are in {ours}",
                hello.options
            )
        } else {
            reason.to_string()
        }
    }

    pub(crate) fn explain_dbdesc(
        &self,
        id: InterfaceId,
        reason: PacketDrop,
        dbdesc: &DbDesc,
    ) -> String {
        let link = self
            .interfaces
            .get(id.0)
            .and_then(|interface| interface.link);
        if let (PacketDrop::Mtu, Some(link)) = (reason, link) {
            format!("MTU {} is larger than ours, {}", dbdesc.mtu, link.mtu)
        } else {
            reason.to_string()
        }
    }
}
