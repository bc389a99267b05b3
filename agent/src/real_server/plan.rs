//! Which steps lead from what the kernel has to what it shall have, and back. Pure.
//!
//! A VIP is only ever there while nobody answers ARP for it: the settings come before the
//! addresses, and go after them.

use isopath_api::ids::Vip;
use isopath_api::real_server::LOOPBACK;

use super::ledger::{Change, Ledger, Sysctl};
use super::observed::{ARP_ANNOUNCE, Conf, LOOSE, Observed, STRICT, Setting, silent};
use super::step::{Step, dotted};
use super::wanted::{Device, Wanted};

/// The steps that take back what was changed, and what stays because somebody else has changed
/// it since, a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) steps: Vec<Step>,
    pub(super) left: Vec<String>,
}

/// What is to be done so that the kernel has what is wanted; nothing once it has. Where an
/// interface has to be made, this is all, for its settings are only there after it.
pub(super) fn up(wanted: &Wanted, observed: &Observed, ledger: &Ledger) -> Release {
    let obsolete = release(ledger, Some(wanted), observed);
    let (first, last): (Vec<Step>, Vec<Step>) = obsolete
        .steps
        .into_iter()
        .partition(|step| matches!(step, Step::RemoveVip { .. }));
    let mut steps = first;
    let made = make(wanted, observed);
    if !made.is_empty() {
        steps.extend(made);
        return Release {
            steps,
            left: obsolete.left,
        };
    }
    steps.extend(settings(wanted, observed));
    // The table is ours by its name, whoever has left it.
    if wanted.mss != observed.mss {
        steps.push(Step::ClampMss(wanted.mss.clone()));
    }
    let closed = wanted.ports.difference(&observed.ports);
    steps.extend(closed.map(|port| Step::OpenPort(*port)));
    for name in wanted.devices.keys() {
        if observed.interfaces.get(name).is_some_and(|it| !it.up) {
            steps.push(Step::Raise(name.clone()));
        }
    }
    for (vip, interface) in &wanted.vips {
        if !observed.carries(interface, *vip) {
            steps.push(Step::AddVip {
                interface: interface.clone(),
                vip: *vip,
            });
        }
    }
    steps.extend(last);
    Release {
        steps,
        left: obsolete.left,
    }
}

/// What is to be done so that the kernel has what it had before.
pub(super) fn down(ledger: &Ledger, observed: &Observed) -> Release {
    release(ledger, None, observed)
}

fn make(wanted: &Wanted, observed: &Observed) -> Vec<Step> {
    let missing = |(name, device): (&String, &Device)| {
        let there = observed.interfaces.contains_key(name);
        (!there).then(|| Step::Make {
            name: name.clone(),
            device: *device,
        })
    };
    wanted.devices.iter().filter_map(missing).collect()
}

/// The settings that differ.
fn settings(wanted: &Wanted, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut set = |folder: &str, conf: &Conf, setting: Setting, value: u32| {
        steps.push(Step::SetSysctl {
            key: setting.key(folder),
            before: conf.value(setting),
            value,
        });
    };
    if wanted.vips.is_empty() {
        return steps;
    }
    // Everything that speaks ARP would speak of the VIP, so it is said to `all`. The greater
    // value counts, so an interface with a greater one of its own is told by itself.
    let mut all = observed.all;
    if !silent(all.arp_ignore) {
        set("all", &all, Setting::ArpIgnore, 1);
        all.arp_ignore = 1;
    }
    if all.arp_announce != ARP_ANNOUNCE {
        set("all", &all, Setting::ArpAnnounce, ARP_ANNOUNCE);
        all.arp_announce = ARP_ANNOUNCE;
    }
    for (name, interface) in observed.speaking_arp() {
        let conf = &interface.conf;
        if !silent(conf.arp_ignore.max(all.arp_ignore)) {
            set(name, conf, Setting::ArpIgnore, 1);
        }
        if conf.arp_announce > ARP_ANNOUNCE {
            set(name, conf, Setting::ArpAnnounce, ARP_ANNOUNCE);
        }
    }
    // The way back to a client leads elsewhere than where its packet came from. 0 would not be
    // enough where `all` is 1, and loosening `all` would loosen every interface.
    for name in wanted.tunnels().chain(&wanted.ingress) {
        if let Some(interface) = observed.interfaces.get(name)
            && observed.effective(Setting::RpFilter, interface) == STRICT
        {
            set(name, &interface.conf, Setting::RpFilter, LOOSE);
        }
    }
    steps
}

/// Whether a setting is one that has to hold for what is wanted.
fn needed(key: &str, wanted: &Wanted, observed: &Observed) -> bool {
    if wanted.vips.is_empty() {
        return false;
    }
    let is = |setting: Setting, name: &String| setting.key(name) == key;
    let arp = [Setting::ArpIgnore, Setting::ArpAnnounce];
    arp.iter().any(|setting| {
        setting.key("all") == key || observed.speaking_arp().any(|(name, _)| is(*setting, name))
    }) || wanted
        .tunnels()
        .chain(&wanted.ingress)
        .any(|name| is(Setting::RpFilter, name))
}

/// Takes back what the ledger has and `wanted` no longer needs.
fn release(ledger: &Ledger, wanted: Option<&Wanted>, observed: &Observed) -> Release {
    let mut release = Release::default();
    for placed in &ledger.vips {
        let stays = wanted.is_some_and(|it| it.vips.get(&placed.vip) == Some(&placed.interface));
        if !stays && observed.carries(&placed.interface, placed.vip) {
            release.steps.push(Step::RemoveVip {
                interface: placed.interface.clone(),
                vip: placed.vip,
            });
        }
    }
    for port in ledger.ports.intersection(&observed.ports) {
        if wanted.is_none_or(|it| !it.ports.contains(port)) {
            release.steps.push(Step::ClosePort(*port));
        }
    }
    for (name, change) in &ledger.interfaces {
        if wanted.is_none_or(|it| !it.devices.contains_key(name)) {
            release_interface(ledger, name, *change, observed, &mut release);
        }
    }
    if ledger.mss && !observed.mss.is_empty() && wanted.is_none() {
        release.steps.push(Step::ClampMss([].into()));
    }
    for sysctl in ledger.sysctls.iter().rev() {
        if wanted.is_none_or(|it| !needed(&sysctl.key, it, observed)) {
            release_sysctl(sysctl, observed, &mut release);
        }
    }
    release
}

fn release_sysctl(sysctl: &Sysctl, observed: &Observed, release: &mut Release) {
    let Sysctl { key, before, set } = sysctl;
    match observed.sysctl(key) {
        // The interface is gone with its settings, or the change never happened.
        None => {}
        Some(found) if found == *before => {}
        Some(found) if found == *set => release.steps.push(Step::RestoreSysctl {
            key: key.clone(),
            value: *before,
        }),
        Some(found) => release.left.push(format!(
            "{} stays {found}: somebody has changed it since it was set to {set} (before: {before})",
            dotted(key)
        )),
    }
}

fn release_interface(
    ledger: &Ledger,
    name: &str,
    change: Change,
    observed: &Observed,
    release: &mut Release,
) {
    let Some(interface) = observed.interfaces.get(name) else {
        return;
    };
    let ours = |address| {
        let placed = |it: &super::ledger::Placed| it.interface == name && it.vip == Vip(address);
        ledger.vips.iter().any(placed)
    };
    // `lo` is of use to everybody once it is up.
    let others = interface.addresses.iter().any(|it| !ours(it.address));
    match change {
        _ if name == LOOPBACK => {}
        _ if others => release.left.push(format!(
            "interface {name} stays: somebody else has put addresses on it"
        )),
        Change::Made => release.steps.push(Step::RemoveInterface(name.to_owned())),
        Change::Raised if interface.up => release.steps.push(Step::Lower(name.to_owned())),
        Change::Raised => {}
    }
}

#[cfg(test)]
mod tests;
