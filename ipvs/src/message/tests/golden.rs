//! For each command of `tests/golden/ipvsadm.txt`, what we send must be what ipvsadm sent.

use std::collections::BTreeMap;

use super::*;

/// The captured messages by their command.
fn corpus() -> BTreeMap<&'static str, Vec<u8>> {
    let mut corpus = BTreeMap::new();
    let text = include_str!("../../../tests/golden/ipvsadm.txt");
    for block in text.split("\n\n").filter(|block| !block.starts_with('#')) {
        let (command, bytes) = block.split_once('\n').unwrap();
        assert_eq!(corpus.insert(command, hex(bytes)), None, "{command} twice");
    }
    corpus
}

fn service(key: ServiceKey, scheduler: Scheduler) -> (String, Change) {
    let spec = ServiceSpec::new(key, scheduler);
    let command = format!("-A {} -s {}", name(&key), spec.scheduler);
    (command, Change::AddService(spec))
}

/// How ipvsadm names a service.
fn name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address } => match protocol {
            Protocol::Tcp => format!("-t {address}"),
            Protocol::Udp => format!("-u {address}"),
            Protocol::Sctp => format!("--sctp-service {address}"),
            Protocol::Other(_) => panic!("ipvsadm has none"),
        },
        ServiceKey::Mark { family, mark } => match family {
            Family::V4 => format!("-f {mark}"),
            Family::V6 => format!("-f {mark} -6"),
        },
    }
}

fn mark(family: Family) -> ServiceKey {
    ServiceKey::mark(family, 7)
}

fn six() -> ServiceKey {
    ServiceKey::tcp(address("[2001:db8::1]:80"))
}

/// Commands that add or change services.
fn service_commands() -> Vec<(String, Change)> {
    let dns = ServiceKey::udp(address("10.99.0.1:53"));
    let sip = ServiceKey::udp(address("10.99.0.1:5060"));
    let sctp = ServiceKey::address(Protocol::Sctp, address("10.99.0.1:3868"));
    let any = ServiceKey::tcp(address("10.99.0.1:0"));
    let mut commands: Vec<_> = Scheduler::ALL
        .into_iter()
        .map(|scheduler| service(web(), scheduler))
        .collect();
    commands.extend([
        service(dns, Scheduler::Rr),
        service(sctp, Scheduler::Rr),
        service(mark(Family::V4), Scheduler::Rr),
        service(mark(Family::V6), Scheduler::Rr),
        service(six(), Scheduler::Wlc),
    ]);
    let with = |options: &str,
                (command, change): (String, Change),
                edit: &dyn Fn(ServiceSpec) -> ServiceSpec| {
        let Change::AddService(spec) = change else {
            panic!("{change:?}");
        };
        (
            format!("{command} {options}"),
            Change::AddService(edit(spec)),
        )
    };
    let flags = |flags| move |spec: ServiceSpec| spec.with_flags(flags);
    let both = ServiceFlags::SCHED1 | ServiceFlags::SCHED2;
    let (mh, sh) = (
        || service(web(), Scheduler::Mh),
        || service(web(), Scheduler::Sh),
    );
    let wlc = |key| service(key, Scheduler::Wlc);
    let netmask = Netmask::V4(Ipv4Addr::new(255, 255, 255, 0));
    let host = Netmask::host(Family::V4);
    commands.extend([
        with("-b mh-port", mh(), &flags(ServiceFlags::MH_PORT)),
        with("-b mh-fallback,mh-port", mh(), &flags(both)),
        with("-b sh-port", sh(), &flags(ServiceFlags::SH_PORT)),
        with("-b sh-fallback,sh-port", sh(), &flags(both)),
        with(
            "-o",
            service(dns, Scheduler::Rr),
            &flags(ServiceFlags::ONE_PACKET),
        ),
        with("-p 50", wlc(web()), &|spec| spec.persistent(50, host)),
        with("-p 3600 -M 255.255.255.0", wlc(web()), &|spec| {
            spec.persistent(3600, netmask)
        }),
        with("-p 50 -M 64", wlc(six()), &|spec| {
            spec.persistent(50, Netmask::V6(64))
        }),
        with("-p 50", wlc(any), &|spec| spec.persistent(50, host)),
        with("-p 50 --pe sip", service(sip, Scheduler::Rr), &|spec| {
            ServiceSpec {
                persistence_engine: Some("sip".to_owned()),
                ..spec.persistent(50, host)
            }
        }),
    ]);
    let changed = ServiceSpec::new(web(), Scheduler::Wrr);
    commands.push((
        "-E -t 10.99.0.1:80 -s wrr".to_owned(),
        Change::SetService(changed),
    ));
    commands
}

/// Commands that add or change destinations.
fn destination_commands() -> Vec<(String, Change)> {
    let four = "10.1.0.11:80";
    let add = |key: ServiceKey, server: &str, options: &str, spec: DestinationSpec| {
        let command = format!("-a {} -r {server} {options}", name(&key));
        (command, Change::AddDestination(key, spec))
    };
    let to = |server: &str, forwarding, weight| {
        DestinationSpec::new(address(server), forwarding, weight)
    };
    let tunnel = |kind, port, checksum| DestinationSpec {
        tunnel: Tunnel {
            kind,
            port,
            checksum,
        },
        ..to(four, Forwarding::Tunnel, 1)
    };
    let (dr, nat, tun) = (
        Forwarding::DirectRoute,
        Forwarding::Masquerade,
        Forwarding::Tunnel,
    );
    let (gue, gre) = (TunnelKind::Gue, TunnelKind::Gre);
    let (none, full, remote) = (
        TunnelChecksum::None,
        TunnelChecksum::Full,
        TunnelChecksum::Remote,
    );
    let thresholds = DestinationSpec {
        upper_threshold: 100,
        lower_threshold: 10,
        ..to(four, dr, 1)
    };
    let gue_option = "-i --tun-type gue --tun-port 6080";
    vec![
        add(web(), four, "-g -w 3", to(four, dr, 3)),
        add(
            web(),
            "10.1.0.11:8080",
            "-m -w 0",
            to("10.1.0.11:8080", nat, 0),
        ),
        add(web(), four, "-i -w 65535", to(four, tun, 65_535)),
        add(web(), four, "-g -x 100 -y 10", thresholds),
        add(web(), four, "-i --tun-type ipip", to(four, tun, 1)),
        add(web(), four, gue_option, tunnel(gue, 6080, none)),
        add(
            web(),
            four,
            &format!("{gue_option} --tun-nocsum"),
            tunnel(gue, 6080, none),
        ),
        add(
            web(),
            four,
            &format!("{gue_option} --tun-csum"),
            tunnel(gue, 6080, full),
        ),
        add(
            web(),
            four,
            &format!("{gue_option} --tun-remcsum"),
            tunnel(gue, 6080, remote),
        ),
        add(web(), four, "-i --tun-type gre", tunnel(gre, 0, none)),
        add(
            web(),
            four,
            "-i --tun-type gre --tun-nocsum",
            tunnel(gre, 0, none),
        ),
        add(
            web(),
            four,
            "-i --tun-type gre --tun-csum",
            tunnel(gre, 0, full),
        ),
        add(mark(Family::V4), four, "-g", to(four, dr, 1)),
        add(
            six(),
            "[2001:db8::2]:80",
            "-m",
            to("[2001:db8::2]:80", nat, 1),
        ),
        add(six(), four, "-i", to(four, tun, 1)),
        add(
            web(),
            "[2001:db8::2]:80",
            "-i",
            to("[2001:db8::2]:80", tun, 1),
        ),
        (
            "-e -t 10.99.0.1:80 -r 10.1.0.11:80 -g -w 7".to_owned(),
            Change::SetDestination(web(), to(four, dr, 7)),
        ),
    ]
}

/// Commands that only name what they act on.
fn other_commands() -> Vec<(String, Change)> {
    let command = |command: &str, change| (command.to_owned(), change);
    vec![
        command("-D -t 10.99.0.1:80", Change::DeleteService(web())),
        command("-D -f 7", Change::DeleteService(mark(Family::V4))),
        command(
            "-d -t 10.99.0.1:80 -r 10.1.0.11:80",
            Change::DeleteDestination(web(), address("10.1.0.11:80")),
        ),
        command("-Z -t 10.99.0.1:80", Change::ZeroService(web())),
    ]
}

/// The attributes of one of a message's containers.
fn inside(message: &[u8], container: u16) -> Vec<(u16, &[u8])> {
    let Some(inside) = first(&message[GENL_HDRLEN..], container).unwrap() else {
        return Vec::new();
    };
    let attributes = attribute::read(inside).map(|it| it.unwrap());
    attributes.map(|it| (it.kind, it.value())).collect()
}

/// ipvsadm does not clear what it had read before of an address, beyond an IPv4 address's four
/// bytes, which the kernel does not look at either.
fn without_remnants(mut message: Vec<u8>, change: &Change) -> Vec<u8> {
    let (Change::AddDestination(_, spec) | Change::SetDestination(_, spec)) = change else {
        return message;
    };
    if let std::net::IpAddr::V4(v4) = spec.address.ip() {
        let starts = (0..message.len() - 16).filter(|at| message[*at..].starts_with(&v4.octets()));
        for start in starts.collect::<Vec<_>>() {
            message[start + 4..start + 16].fill(0);
        }
    }
    message
}

#[test]
fn what_is_sent_is_what_ipvsadm_sends() {
    let mut corpus = corpus();
    let mut take = |command: &str| {
        let captured = corpus.remove(format!("ipvsadm {command}").as_str());
        captured.unwrap_or_else(|| panic!("{command} was not captured"))
    };
    for (command, change) in service_commands() {
        assert_eq!(changed(&change), take(&command), "{command}");
    }
    let naming = destination_commands().into_iter().chain(other_commands());
    for (command, change) in naming {
        let golden = without_remnants(take(&command), &change);
        let ours = changed(&change);
        assert_eq!(ours[..GENL_HDRLEN], golden[..GENL_HDRLEN], "{command}");
        // To name a service, ipvsadm sends more than its name: a name without scheduler, flags and
        // so on. The kernel looks at none of that (`ip_vs_genl_parse_service`, !full_entry).
        for container in [SERVICE, DEST] {
            let golden = inside(&golden, container);
            for attribute in inside(&ours, container) {
                assert!(
                    golden.contains(&attribute),
                    "{command}: {attribute:?} of {container}"
                );
            }
        }
        if matches!(
            change,
            Change::AddDestination(..) | Change::SetDestination(..)
        ) {
            assert_eq!(inside(&ours, DEST), inside(&golden, DEST), "{command}");
        }
    }
    let timeouts = Timeouts {
        tcp: 900,
        tcp_fin: 120,
        udp: 300,
    };
    for (command, ours) in [
        ("-Z", request(FAMILY, Command::Zero)),
        ("-C", request(FAMILY, Command::Flush)),
        ("--set 900 120 300", set_timeouts(FAMILY, timeouts)),
    ] {
        assert_eq!(body(&ours), take(command), "{command}");
    }
    let ours = service_request(FAMILY, Command::GetService, &web());
    let golden = take("-Ln -t 10.99.0.1:80");
    assert_eq!(body(&ours)[..GENL_HDRLEN], golden[..GENL_HDRLEN]);
    let golden = inside(&golden, SERVICE);
    for attribute in inside(body(&ours), SERVICE) {
        assert!(golden.contains(&attribute), "{attribute:?}");
    }
    assert!(
        corpus.is_empty(),
        "captured, but not compared: {:?}",
        corpus.keys()
    );
}
