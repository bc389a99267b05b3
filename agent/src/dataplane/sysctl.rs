//! The sysctls of a director, in the network namespace of the process.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::step::Step;

/// What IPVS does with a connection whose real server is gone: 1 ends it, 0 drops its packets.
pub(super) const EXPIRE_NODEST_CONN: &str = "net/ipv4/vs/expire_nodest_conn";

/// The sysctls that must have a value, in the order in which they are written.
const REQUIRED: [(&str, &str); 8] = [
    // NAT forwards; the kernel resets others with it, so it comes first.
    ("net/ipv4/ip_forward", "1"),
    // A packet of a connection that another director began is scheduled like a first one. It
    // must hold before anything is announced.
    ("net/ipv4/vs/sloppy_tcp", "1"),
    // An ICMP error about such a connection finds its real server too.
    ("net/ipv4/vs/schedule_icmp", "1"),
    // A connection to a real server that is gone ends instead of being dropped silently.
    (EXPIRE_NODEST_CONN, "1"),
    // A persistent client leaves a real server of weight 0.
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    // A client's reused port is a new connection, without a delay from Linux 5.9 on.
    ("net/ipv4/vs/conn_reuse_mode", "1"),
    // The VIPs are reached by route alone: an answer to ARP would take them past the switch.
    // The greater of `all` and the interface's own value counts, so `all` is enough.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
];

const CONF: &str = "net/ipv4/conf";
const RP_FILTER_ALL: &str = "net/ipv4/conf/all/rp_filter";

/// Strict reverse path filtering drops clients' packets that come in over another uplink than
/// the one that leads back to them, which is normal with two switches. The greater of `all`
/// and the interface's own value counts (`IN_DEV_RPFILTER`), so 2, loose, on `all` replaces a
/// strict 1 anywhere. Where nothing is strict, nothing is changed.
fn is_strict(sysctls: &BTreeMap<String, Option<String>>) -> bool {
    let value = |key: &str| sysctls.get(key).and_then(Option::as_deref);
    let one = |(key, value): (&String, &Option<String>)| {
        key.starts_with(CONF)
            && key.ends_with("/rp_filter")
            && !key.contains("/default/")
            && value.as_deref() == Some("1")
    };
    value(RP_FILTER_ALL) != Some("2") && sysctls.iter().any(one)
}

/// The steps that give the sysctls their values.
pub(super) fn plan(observed: &BTreeMap<String, Option<String>>) -> Vec<Step> {
    let differs =
        |key: &str, value: &str| observed.get(key).and_then(Option::as_deref) != Some(value);
    let mut steps: Vec<Step> = REQUIRED
        .iter()
        .filter(|(key, value)| differs(key, value))
        .map(|(key, value)| Step::SetSysctl {
            key: (*key).to_owned(),
            value,
        })
        .collect();
    if is_strict(observed) {
        steps.push(Step::SetSysctl {
            key: RP_FILTER_ALL.to_owned(),
            value: "2",
        });
    }
    steps
}

/// Reads the sysctls that matter; `root` is `/proc/sys`. Its files are the kernel's memory, so
/// reading does not wait for a disk.
pub(super) fn read(root: &Path) -> io::Result<BTreeMap<String, Option<String>>> {
    let mut keys: Vec<String> = REQUIRED.iter().map(|(key, _)| (*key).to_owned()).collect();
    for entry in std::fs::read_dir(root.join(CONF))? {
        if let Some(name) = entry?.file_name().to_str() {
            keys.push(format!("{CONF}/{name}/rp_filter"));
        }
    }
    let mut sysctls = BTreeMap::new();
    for key in keys {
        let value = match std::fs::read_to_string(root.join(&key)) {
            Ok(text) => Some(text.trim().to_owned()),
            // Missing in this kernel, or an interface that has just gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        sysctls.insert(key, value);
    }
    Ok(sysctls)
}

/// Writes a sysctl.
pub(super) fn write(root: &Path, key: &str, value: &str) -> io::Result<()> {
    std::fs::write(root.join(key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(changes: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        let required = REQUIRED.iter().map(|(key, value)| (*key, Some(*value)));
        let all = required.chain(changes.iter().copied());
        all.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .collect()
    }

    fn written(changes: &[(&str, Option<&str>)]) -> Vec<String> {
        let text = |step| match step {
            Step::SetSysctl { key, value } => format!("{key}={value}"),
            other => panic!("{other:?} is no sysctl"),
        };
        plan(&observed(changes)).into_iter().map(text).collect()
    }

    #[test]
    fn only_what_differs_is_written_and_what_is_missing_counts_as_different() {
        assert_eq!(written(&[]), [""; 0]);
        let changes = [
            ("net/ipv4/vs/sloppy_tcp", Some("0")),
            ("net/ipv4/vs/schedule_icmp", None),
        ];
        let expected = ["net/ipv4/vs/sloppy_tcp=1", "net/ipv4/vs/schedule_icmp=1"];
        assert_eq!(written(&changes), expected);
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
            assert_eq!(written(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn values_are_read_and_written_in_the_tree_given() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["net/ipv4/vs", "net/ipv4/conf/all", "net/ipv4/conf/eth1"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        write(root.path(), "net/ipv4/conf/eth1/rp_filter", "1").unwrap();
        write(root.path(), "net/ipv4/vs/sloppy_tcp", "0\n").unwrap();
        let sysctls = read(root.path()).unwrap();
        assert_eq!(sysctls["net/ipv4/vs/sloppy_tcp"].as_deref(), Some("0"));
        assert_eq!(sysctls["net/ipv4/ip_forward"], None);
        assert!(is_strict(&sysctls), "{sysctls:?}");
    }
}
