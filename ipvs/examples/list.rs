//! Lists everything, as `ipvsadm -Ln` does: `cargo run -p isopath-ipvs --example list`.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use isopath_ipvs::{Error, Ipvs, ServiceFlags, ServiceSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let ipvs = Ipvs::connect().await?;
    let info = ipvs.info().await?;
    let (major, minor, patch) = info.version;
    let size = info.connection_table_size;
    println!("IPVS {major}.{minor}.{patch}, {size} connection buckets");
    for (service, servers) in ipvs.tables().await? {
        println!("{}{}", service.spec.key, options(&service.spec));
        for server in servers {
            println!(
                "  -> {} {} weight {} active {} inactive {}, {} connections so far",
                server.spec.address,
                server.spec.forwarding,
                server.spec.weight,
                server.active,
                server.inactive,
                server.stats.connections,
            );
        }
    }
    Ok(())
}

fn options(spec: &ServiceSpec) -> String {
    let mut options = format!(" {}", spec.scheduler);
    for flag in spec.scheduler_flags() {
        options = format!("{options} {flag}");
    }
    if spec.flags.contains(ServiceFlags::PERSISTENT) {
        let persistence = spec.persistence;
        let (timeout, netmask) = (persistence.timeout, persistence.netmask);
        options = format!("{options} persistent {timeout} s, mask {netmask}");
    }
    options
}
