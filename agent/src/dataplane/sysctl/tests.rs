use isopath_api::ids::ServiceId;

use super::*;

const SLOPPY_TCP: &str = "net/ipv4/vs/sloppy_tcp";
const SLOPPY_SCTP: &str = "net/ipv4/vs/sloppy_sctp";
const SCHEDULE_ICMP: &str = "net/ipv4/vs/schedule_icmp";
const REUSE: &str = "net/ipv4/vs/conn_reuse_mode";
const RP_FILTER_ALL: &str = "net/ipv4/conf/all/rp_filter";

fn needs(profile: Profile) -> Needs {
    Needs {
        profile,
        nat: false,
        sctp: false,
    }
}

/// A kernel that has all values of the profile, but for these.
fn observed(profile: Profile, changes: &[(&str, Option<&str>)]) -> Values {
    let required = REQUIRED.iter().map(|it| (it.key, Some(it.value(profile))));
    let all = required.chain(changes.iter().copied());
    all.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
        .collect()
}

fn written(observed: &Values, needs: Needs) -> Vec<String> {
    let text = |step| match step {
        Step::SetSysctl { key, value } => format!("{key}={value}"),
        other => panic!("{other:?} is no sysctl"),
    };
    plan(observed, needs).into_iter().map(text).collect()
}

#[test]
fn only_what_differs_is_written_and_each_profile_has_its_own_values() {
    use Profile::{Stateful, Stateless};
    for profile in [Stateless, Stateful] {
        assert_eq!(written(&observed(profile, &[]), needs(profile)), [""; 0]);
    }
    let off = [
        "sloppy_tcp=0",
        "sloppy_sctp=0",
        "schedule_icmp=0",
        "conn_reuse_mode=1",
    ];
    let on = [
        "sloppy_tcp=1",
        "sloppy_sctp=1",
        "schedule_icmp=1",
        "conn_reuse_mode=3",
    ];
    for (from, to, expected) in [(Stateless, Stateful, off), (Stateful, Stateless, on)] {
        let expected = expected.map(|it| format!("net/ipv4/vs/{it}"));
        assert_eq!(
            written(&observed(from, &[]), needs(to)),
            expected,
            "to {to}"
        );
    }
}

#[test]
fn what_the_digest_counts_is_what_is_written() {
    for profile in [Profile::Stateless, Profile::Stateful] {
        for id in [
            "tcp:10.99.0.1:80",
            "sctp:10.99.0.1:80",
            "fwmark:10.99.0.1:7",
        ] {
            let id: ServiceId = id.parse().unwrap();
            for (key, value) in digest::sysctls(profile, id.packets) {
                let required = REQUIRED.iter().find(|it| it.key == key);
                let written = required.map(|it| it.value(profile));
                assert_eq!(written, Some(value), "{key} of {profile} for {id}");
            }
        }
    }
}

#[test]
fn a_key_that_the_kernel_lacks_is_an_error_only_where_it_is_needed() {
    let sctp = |needs| Needs {
        sctp: true,
        ..needs
    };
    let stateless = needs(Profile::Stateless);
    let stateful = needs(Profile::Stateful);
    let cases = [
        (SLOPPY_TCP, stateless, true),
        (SLOPPY_TCP, stateful, false),
        (SCHEDULE_ICMP, stateless, true),
        (SCHEDULE_ICMP, stateful, false),
        (SLOPPY_SCTP, stateless, false),
        (SLOPPY_SCTP, sctp(stateless), true),
        (SLOPPY_SCTP, sctp(stateful), false),
        (EXPIRE_NODEST_CONN, stateful, true),
        (REUSE, stateless, false),
    ];
    for (key, needs, error) in cases {
        let found = written(&observed(needs.profile, &[(key, None)]), needs);
        assert_eq!(!found.is_empty(), error, "{key}, {needs:?}: {found:?}");
    }
}

#[test]
fn a_strict_rp_filter_is_loosened_and_no_other_is_touched() {
    let eth = "net/ipv4/conf/eth1/rp_filter";
    let default = "net/ipv4/conf/default/rp_filter";
    let cases = [
        (vec![(RP_FILTER_ALL, "0"), (eth, "0")], false),
        (vec![(RP_FILTER_ALL, "0"), (eth, "2")], false),
        (vec![(RP_FILTER_ALL, "0"), (eth, "1")], true),
        (vec![(RP_FILTER_ALL, "1"), (eth, "0")], true),
        (vec![(RP_FILTER_ALL, "2"), (eth, "1")], false),
        (vec![(RP_FILTER_ALL, "0"), (default, "1")], false),
    ];
    for (values, loosened) in cases {
        let values: Vec<_> = values.iter().map(|(key, it)| (*key, Some(*it))).collect();
        let expected: &[&str] = match loosened {
            true => &["net/ipv4/conf/all/rp_filter=2"],
            false => &[],
        };
        let observed = observed(Profile::Stateless, &values);
        let written = written(&observed, needs(Profile::Stateless));
        assert_eq!(written, expected, "{values:?}");
    }
}

#[test]
fn redirects_are_silenced_everywhere_for_nat_and_nowhere_without() {
    let values = [
        ("net/ipv4/conf/all/send_redirects", Some("1")),
        ("net/ipv4/conf/default/send_redirects", Some("1")),
        ("net/ipv4/conf/eth1/send_redirects", Some("1")),
        ("net/ipv4/conf/eth2/send_redirects", Some("0")),
        // It went while the others were read.
        ("net/ipv4/conf/eth3/send_redirects", None),
    ];
    let observed = observed(Profile::Stateful, &values);
    let direct = needs(Profile::Stateful);
    assert_eq!(written(&observed, direct), [""; 0]);
    let nat = Needs {
        nat: true,
        ..direct
    };
    let expected = [
        "net/ipv4/conf/all/send_redirects=0",
        "net/ipv4/conf/eth1/send_redirects=0",
    ];
    assert_eq!(written(&observed, nat), expected);
}

#[test]
fn values_are_read_and_written_in_the_tree_given() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["net/ipv4/vs", "net/ipv4/conf/all", "net/ipv4/conf/eth1"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    write(root.path(), "net/ipv4/conf/eth1/rp_filter", "1").unwrap();
    write(root.path(), "net/ipv4/conf/eth1/send_redirects", "1").unwrap();
    write(root.path(), SLOPPY_TCP, "0\n").unwrap();
    let sysctls = read(root.path()).unwrap();
    assert_eq!(sysctls[SLOPPY_TCP].as_deref(), Some("0"));
    assert_eq!(sysctls["net/ipv4/ip_forward"], None);
    assert!(is_strict(&sysctls), "{sysctls:?}");
    let redirecting: Vec<_> = redirecting(&sysctls).collect();
    assert_eq!(redirecting, ["net/ipv4/conf/eth1/send_redirects"]);
}
