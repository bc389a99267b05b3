//! What an agent would do that is started on a file, without doing it.

use std::sync::Arc;

use isopath_api::config::{Dataplane as Kind, DirectorFile};
use isopath_api::ids::RealServerId;

use crate::dataplane::{Dataplane, KernelService, Preview, ServiceWanted, Wanted};
use crate::desired::{Identity, Intent};
use crate::run::last_good;
use crate::store::StoreError;

/// The steps between the running kernel and what a file, or the last desired state that the
/// controller of the file sent, asks for.
///
/// No check is tried. A real server that the kernel has with weight 0 is taken for dead, every
/// other one for healthy.
///
/// # Errors
/// What an agent before has written down in the state directory cannot be read.
pub async fn preview(file: &DirectorFile) -> Result<Preview, StoreError> {
    let director = &file.director;
    let Some(intent) = intent(file) else {
        let unread = Some("no desired state has come from the controller yet".to_owned());
        let steps = Vec::new();
        return Ok(Preview { unread, steps });
    };
    if director.dataplane == Kind::None {
        return Ok(Preview::default());
    }
    let interface = director.vip_interface.clone();
    let mut dataplane = Dataplane::new(director.dataplane, interface, &director.state_dir)?;
    // Where it cannot be read, the preview itself says why.
    let kernel = dataplane.services().await.unwrap_or_default();
    let services = intent.services.iter().map(|spec| {
        let id = spec.id();
        let service = kernel.get(&id).map(|service| &**service);
        let wanted = ServiceWanted::of(spec, |server, weight| weight_in(service, server, weight));
        (id, Arc::new(wanted))
    });
    let wanted = Wanted {
        vips: intent.vips.iter().map(|spec| spec.address).collect(),
        services: services.collect(),
        lvs: intent.lvs,
    };
    Ok(dataplane.preview(&wanted).await)
}

fn weight_in(service: Option<&KernelService>, server: RealServerId, declared: u16) -> u16 {
    match service.and_then(|service| service.real_server(server)) {
        Some(server) if server.spec.weight == 0 => 0,
        Some(_) | None => declared,
    }
}

/// What the file asks for, or what the controller asked for last.
fn intent(file: &DirectorFile) -> Option<Intent> {
    let Some(controller) = &file.controller else {
        return Some(Intent::from_file(file));
    };
    let identity = Identity {
        cluster: controller.cluster.clone(),
        director: file.director.name.clone(),
        router_id: file.director.router_id,
        area_type: file.ospf.area_type,
    };
    let desired = last_good(&file.director.state_dir.join("desired.json"), &identity)?;
    Some(Intent::from(desired))
}
