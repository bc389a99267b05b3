//! A host and a file for the tests of the pure parts.

use isopath_api::real_server::RealServerFile;

use super::ledger::Ledger;
use super::observed::{Address, Conf, Interface, Observed};
use super::step::Step;

/// A host with nothing set: `lo`, and `eth0` with an address.
pub(super) fn host() -> Observed {
    let mut observed = Observed::default();
    observed.place.boot_id = "this".to_owned();
    let mut lo = interface(1, false, &["127.0.0.1/8"]);
    lo.mtu = 65536;
    observed.interfaces.insert("lo".to_owned(), lo);
    let eth0 = interface(2, true, &["10.1.0.11/24"]);
    observed.interfaces.insert("eth0".to_owned(), eth0);
    observed
}

/// An interface that is up.
pub(super) fn interface(index: u32, arp: bool, addresses: &[&str]) -> Interface {
    Interface {
        index,
        up: true,
        arp,
        mtu: 1500,
        addresses: addresses.iter().map(|it| address(it)).collect(),
        ..Interface::default()
    }
}

pub(super) fn address(text: &str) -> Address {
    let (address, length) = text.split_once('/').unwrap();
    Address {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
        host_scope: address.starts_with("127."),
    }
}

pub(super) fn file(text: &str) -> RealServerFile {
    RealServerFile::parse("rs.toml", text).unwrap()
}

/// A file of one VIP, 10.99.0.1.
pub(super) fn one(rest: &str) -> RealServerFile {
    file(&format!("[[vip]]\naddress = \"10.99.0.1\"\n{rest}\n"))
}

/// Does to the host what the kernel does at a step.
pub(super) fn apply(step: &Step, host: &mut Observed) {
    let conf = |host: &mut Observed, key: &str, value| {
        let (folder, name) = key
            .strip_prefix("net/ipv4/conf/")
            .and_then(|it| it.rsplit_once('/'))
            .unwrap();
        let setting = super::observed::Setting::ALL;
        let setting = setting.into_iter().find(|it| it.name() == name).unwrap();
        let conf: &mut Conf = match folder {
            "all" => &mut host.all,
            name => &mut host.interfaces.get_mut(name).unwrap().conf,
        };
        conf.set(setting, value);
    };
    match step {
        Step::Make { name, device } => {
            let mut made = interface(9, false, &[]);
            made.up = !device.is_tunnel();
            made.kind = device.kind().map(str::to_owned);
            host.interfaces.insert(name.clone(), made);
        }
        Step::SetSysctl { key, value, .. } | Step::RestoreSysctl { key, value } => {
            conf(host, key, *value);
        }
        Step::ClampMss(vips) => host.mss = vips.clone(),
        Step::OpenPort(port) => drop(host.ports.insert(*port)),
        Step::ClosePort(port) => drop(host.ports.remove(port)),
        Step::Raise(name) => host.interfaces.get_mut(name).unwrap().up = true,
        Step::Lower(name) => host.interfaces.get_mut(name).unwrap().up = false,
        Step::AddVip { interface, vip } => {
            let addresses = &mut host.interfaces.get_mut(interface).unwrap().addresses;
            addresses.insert(address(&format!("{vip}/32")));
        }
        Step::RemoveVip { interface, vip } => {
            let addresses = &mut host.interfaces.get_mut(interface).unwrap().addresses;
            addresses.remove(&address(&format!("{vip}/32")));
        }
        Step::RemoveInterface(name) => drop(host.interfaces.remove(name)),
    }
}

/// Executes steps as the command does.
pub(super) fn execute(steps: &[Step], host: &mut Observed, ledger: &mut Ledger) {
    for step in steps {
        ledger.intend(step);
        apply(step, host);
        ledger.forget(step);
    }
}
