//! Adds a service with its real servers by direct routing, or says of each what was refused:
//! `cargo run -p isopath-ipvs --example add -- 10.99.0.1:80 10.1.0.11:80 10.1.0.12:80`.
//!
//! The real servers are added while the service has no scheduler, which costs the kernel one
//! table of `mh` instead of one for each of them, and lets no client in before all are there.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;
use std::net::SocketAddr;

use isopath_ipvs::{
    Change, DestinationSpec, Forwarding, Ipvs, Scheduler, ServiceFlags, ServiceKey, ServiceSpec,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses = std::env::args().skip(1).map(|text| text.parse());
    let addresses = addresses.collect::<Result<Vec<SocketAddr>, _>>()?;
    let [vip, servers @ ..] = addresses.as_slice() else {
        return Err("which address and port shall the service have?".into());
    };
    let key = ServiceKey::tcp(*vip);
    let flags = ServiceFlags::MH_PORT | ServiceFlags::MH_FALLBACK;
    let spec = |scheduler| ServiceSpec::new(key, scheduler).with_flags(flags);

    let mut changes = vec![Change::AddService(spec(Scheduler::from("none")))];
    changes.extend(servers.iter().map(|server| {
        let server = DestinationSpec::new(*server, Forwarding::DirectRoute, 1);
        Change::AddDestination(key, server)
    }));
    changes.push(Change::SetService(spec(Scheduler::Mh)));

    let ipvs = Ipvs::connect().await?;
    for (change, result) in changes.iter().zip(ipvs.apply(&changes).await) {
        match result {
            Ok(()) => println!("done: {}", change.operation()),
            Err(error) => println!("{error}: {}", error.cause),
        }
    }
    Ok(())
}
