use isopath_api::real_server::RealServerFile;
use proptest::prelude::*;

use super::*;
use crate::real_server::observed::{Interface, Place};
use crate::real_server::testing::{address, execute, file, host, interface, one};

const DR: &str = "forwarding = \"dr\"";
const TUN: &str = "forwarding = \"tun\"";

/// `arp_ignore` and `arp_announce`.
type ArpPair = (u32, u32);

/// `up` as the command does it: planned anew until nothing is left.
fn bring_up(file: &RealServerFile, host: &mut Observed, ledger: &mut Ledger) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..4 {
        let plan = up(&Wanted::new(file, host), host, ledger);
        if plan.steps.is_empty() {
            return done;
        }
        done.extend(plan.steps.iter().map(ToString::to_string));
        execute(&plan.steps, host, ledger);
    }
    panic!("not settled: {done:?}");
}

fn bring_down(host: &mut Observed, ledger: &mut Ledger) -> Vec<String> {
    let plan = down(ledger, host);
    execute(&plan.steps, host, ledger);
    plan.left
}

fn ledger() -> Ledger {
    Ledger::new(Place::default())
}

#[test]
fn direct_routing_sets_the_settings_before_the_address() {
    let done = bring_up(&one(DR), &mut host(), &mut ledger());
    let expected = [
        "set net.ipv4.conf.all.arp_ignore to 1 (was 0)",
        "set net.ipv4.conf.all.arp_announce to 2 (was 0)",
        "add VIP 10.99.0.1 to interface lo",
    ];
    assert_eq!(done, expected);
}

#[test]
fn a_tunnel_is_made_first_because_its_settings_come_with_it() {
    let mut host = host();
    host.all.rp_filter = 1;
    let done = bring_up(&one(TUN), &mut host, &mut ledger());
    let expected = [
        "load ipip for interface tunl0",
        "set net.ipv4.conf.all.arp_ignore to 1 (was 0)",
        "set net.ipv4.conf.all.arp_announce to 2 (was 0)",
        "set net.ipv4.conf.tunl0.rp_filter to 2 (was 0)",
        "set net.ipv4.conf.eth0.rp_filter to 2 (was 0)",
        "lower the MSS of SYNs from 10.99.0.1 to 1440",
        "set interface tunl0 up",
        "add VIP 10.99.0.1 to interface tunl0",
    ];
    assert_eq!(done, expected);
}

#[test]
fn a_greater_value_of_an_interface_is_what_counts() {
    // all and eth0: what is set.
    let table: [(ArpPair, ArpPair, &[&str]); 6] = [
        ((1, 2), (0, 0), &[]),
        ((8, 2), (2, 2), &[]),
        ((3, 2), (0, 0), &["all/arp_ignore=1"]),
        ((0, 2), (1, 0), &["all/arp_ignore=1"]),
        (
            (1, 2),
            (3, 3),
            &["eth0/arp_ignore=1", "eth0/arp_announce=2"],
        ),
        ((2, 3), (9, 2), &["all/arp_announce=2", "eth0/arp_ignore=1"]),
    ];
    for (all, own, expected) in table {
        let mut host = host();
        (host.all.arp_ignore, host.all.arp_announce) = all;
        let eth0 = &mut host.interfaces.get_mut("eth0").unwrap().conf;
        (eth0.arp_ignore, eth0.arp_announce) = own;
        let wanted = Wanted::new(&one(DR), &host);
        let steps = up(&wanted, &host, &ledger()).steps;
        let set: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::SetSysctl { key, value, .. } => {
                    let key = key.strip_prefix("net/ipv4/conf/").unwrap();
                    Some(format!("{key}={value}"))
                }
                _ => None,
            })
            .collect();
        assert_eq!(set, expected, "all {all:?}, eth0 {own:?}");
    }
}

#[test]
fn what_somebody_else_has_changed_since_stays_and_is_told() {
    let (mut host, mut ledger) = (host(), ledger());
    bring_up(&one(DR), &mut host, &mut ledger);
    host.all.arp_ignore = 2;
    let left = bring_down(&mut host, &mut ledger);
    assert_eq!(host.all.arp_ignore, 2);
    assert_eq!(host.all.arp_announce, 0, "this one is still as it was set");
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("net.ipv4.conf.all.arp_ignore stays 2"));
}

#[test]
fn a_tunnel_that_others_use_stays_up() {
    let (mut host, mut ledger) = (host(), ledger());
    bring_up(&one(TUN), &mut host, &mut ledger);
    let tunl0 = host.interfaces.get_mut("tunl0").unwrap();
    tunl0.addresses.insert(address("10.7.0.1/32"));
    let left = bring_down(&mut host, &mut ledger);
    assert!(host.interfaces["tunl0"].up);
    assert!(left[0].contains("somebody else"), "{left:?}");
}

#[test]
fn what_was_right_before_is_not_taken_away() {
    let (mut host, mut ledger) = (host(), ledger());
    let lo = host.interfaces.get_mut("lo").unwrap();
    lo.addresses.insert(address("10.99.0.1/32"));
    let before = host.clone();
    bring_up(&one(DR), &mut host, &mut ledger);
    bring_down(&mut host, &mut ledger);
    assert_eq!(host, before);
}

#[test]
fn a_changed_file_takes_back_what_it_no_longer_asks_for() {
    let (mut host, mut ledger) = (host(), ledger());
    host.all.rp_filter = 1;
    let before = host.clone();
    bring_up(&one(TUN), &mut host, &mut ledger);
    let done = bring_up(&one(DR), &mut host, &mut ledger);
    let expected = [
        "remove VIP 10.99.0.1 from interface tunl0",
        "lower no MSS any more",
        "add VIP 10.99.0.1 to interface lo",
        "set interface tunl0 down",
        "set net.ipv4.conf.tunl0.rp_filter back to 0",
    ];
    assert_eq!(done, expected);
    bring_down(&mut host, &mut ledger);
    assert!(ledger.is_empty(), "{ledger:?}");
    // The module stays.
    host.interfaces.remove("tunl0");
    assert_eq!(host, before);
}

#[test]
fn a_dummy_is_made_and_deleted_unless_it_was_there() {
    let file = file(
        "[real_server]\nvip_interface = \"vips\"\n\
         [[vip]]\naddress = \"10.99.0.1\"\nforwarding = \"dr\"\n",
    );
    for there in [false, true] {
        let (mut host, mut ledger) = (host(), ledger());
        if there {
            let mut dummy = interface(3, false, &[]);
            dummy.kind = Some("dummy".to_owned());
            host.interfaces.insert("vips".to_owned(), dummy);
        }
        let before = host.clone();
        bring_up(&file, &mut host, &mut ledger);
        assert!(host.carries("vips", "10.99.0.1".parse().unwrap()));
        bring_down(&mut host, &mut ledger);
        assert_eq!(host, before, "there before: {there}");
    }
}

const FILES: [&str; 3] = [
    DR,
    TUN,
    "forwarding = \"tun\"\ntunnel = { type = \"gue\", port = 6080 }",
];

proptest! {
    /// Whatever the settings were, and wherever the first `up` was cut off: a second one
    /// reaches a host that never speaks of the VIP, a third finds nothing to do, and `down`
    /// leaves what was there before.
    #[test]
    fn up_after_a_crash_and_down_restore_the_host(
        file in prop::sample::select(&FILES[..]),
        all in any_conf(),
        eth0 in any_conf(),
        cut in 0_usize..10,
    ) {
        let (mut host, mut ledger) = (host(), ledger());
        host.all = all;
        host.interfaces.get_mut("eth0").unwrap().conf = eth0;
        // The module is there, as after any earlier use.
        let tunl0 = Interface { up: false, kind: Some("ipip".to_owned()), ..interface(3, false, &[]) };
        host.interfaces.insert("tunl0".to_owned(), tunl0);
        let before = host.clone();
        let file = one(file);

        let plan = up(&Wanted::new(&file, &host), &host, &ledger);
        for step in &plan.steps {
            ledger.intend(step);
        }
        let mut scratch = ledger.clone();
        execute(&plan.steps[..cut.min(plan.steps.len())], &mut host, &mut scratch);

        bring_up(&file, &mut host, &mut ledger);
        for (_, interface) in host.speaking_arp() {
            prop_assert!(silent(host.effective(Setting::ArpIgnore, interface)));
            prop_assert_eq!(host.effective(Setting::ArpAnnounce, interface), ARP_ANNOUNCE);
            prop_assert_ne!(host.effective(Setting::RpFilter, interface), STRICT);
        }
        prop_assert_eq!(bring_up(&file, &mut host, &mut ledger), Vec::<String>::new());
        prop_assert_eq!(bring_down(&mut host, &mut ledger), Vec::<String>::new());
        prop_assert_eq!(host, before);
    }

    /// At no moment is the VIP there while somebody would answer ARP for it.
    #[test]
    fn the_vip_is_never_there_before_or_after_its_settings(all in any_conf(), eth0 in any_conf()) {
        let (mut host, mut ledger) = (host(), ledger());
        host.all = all;
        host.interfaces.get_mut("eth0").unwrap().conf = eth0;
        let check = |host: &Observed| {
            let vip = Vip("10.99.0.1".parse().unwrap());
            let ignore = host.effective(Setting::ArpIgnore, &host.interfaces["eth0"]);
            !host.carries("lo", vip) || silent(ignore)
        };
        let steps = up(&Wanted::new(&one(DR), &host), &host, &ledger).steps;
        for step in &steps {
            execute(std::slice::from_ref(step), &mut host, &mut ledger);
            prop_assert!(check(&host), "after: {}", step);
        }
        for step in &down(&ledger, &host).steps {
            execute(std::slice::from_ref(step), &mut host, &mut ledger);
            prop_assert!(check(&host), "after: {}", step);
        }
    }
}

fn any_conf() -> impl Strategy<Value = Conf> {
    (0_u32..10, 0_u32..4, 0_u32..3).prop_map(|(arp_ignore, arp_announce, rp_filter)| Conf {
        arp_ignore,
        arp_announce,
        rp_filter,
    })
}
