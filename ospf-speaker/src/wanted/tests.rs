//! The voices as a table: what is said and when, then what follows.

use super::*;

const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);

const FILE: &str = r#"
[director]
name = "d1"
router_id = "10.0.1.2"
[ospf]
[[ospf.interface]]
name = "eth1"
[[vip]]
address = "10.99.0.1"
announce = { cost = 7 }
[[vip]]
address = "10.99.0.2"
[[service]]
vip = "10.99.0.2"
protocol = "tcp"
port = 80
check = { type = "tcp" }
[[service.real_server]]
address = "10.1.0.11"
"#;

#[derive(Debug, Clone, Copy)]
enum Say {
    /// The client announces VIP .1 at this cost and withholds .3, with a hold of 10 s.
    Announce(ClientId, u16),
    /// As above but it is refused because of this process.
    RefusedBy(ClientId, u32),
    Heard(ClientId),
    Closed(ClientId),
    Withdraw(&'static str),
    Force(&'static str),
    Clear(&'static str),
    Stop,
}

struct Case {
    name: &'static str,
    wait_for_agent: bool,
    /// Seconds since the start, and what is said then.
    said: &'static [(u64, Say)],
    /// When to look, in seconds since the start.
    at: u64,
    /// The last number of each VIP, then `+cost source` or `-reason`.
    verdicts: &'static [&'static str],
    owner: &'static str,
}

fn vip(text: &str) -> Vip {
    text.parse().unwrap()
}

fn wanted(wait_for_agent: bool) -> Wanted {
    let file = DirectorFile::parse("d1.toml", FILE).unwrap();
    Wanted::new(&file, wait_for_agent, BTreeMap::new())
}

fn say(wanted: &mut Wanted, now: Instant, what: Say) {
    let announce = |wanted: &mut Wanted, client: ClientId, cost: u16| {
        let set = [Announcement {
            vip: vip("10.99.0.1"),
            cost,
            kind: AnnounceAs::Stub,
        }];
        let withheld = vec![Withheld {
            vip: vip("10.99.0.3"),
            reason: Reason::NoServices,
        }];
        let pid = u32::try_from(client.0).unwrap();
        wanted.announce(now, client, pid, &set, withheld, 10_000)
    };
    let mut set_override =
        |text: &str, action| wanted.set_override(vip(text), action, "by hand".to_owned());
    match what {
        Say::Announce(client, cost) => announce(wanted, client, cost).unwrap(),
        Say::RefusedBy(client, pid) => {
            assert_eq!(announce(wanted, client, 9), Err(Refusal::Owned { pid }));
            assert_eq!(wanted.heartbeat(client), Err(Refusal::Owned { pid }));
        }
        Say::Heard(client) => wanted.heard(now, client),
        Say::Closed(client) => wanted.closed(client),
        Say::Withdraw(text) => set_override(text, OverrideAction::Withdraw).unwrap(),
        Say::Force(text) => set_override(text, OverrideAction::Announce { cost: 5 }).unwrap(),
        Say::Clear(text) => set_override(text, OverrideAction::Clear).unwrap(),
        Say::Stop => wanted.stop(),
    }
}

fn shown(wanted: &Wanted) -> Vec<String> {
    let shown = |(vip, verdict): (Vip, Verdict)| {
        let last = vip.0.octets()[3];
        match verdict {
            Verdict::Announce {
                how: Announce { kind, cost },
                source,
            } => {
                assert_eq!(kind, AnnounceAs::Stub);
                format!("{last} +{cost} {source:?}").to_lowercase()
            }
            Verdict::Withhold(reason) => format!("{last} -{}", reason.code()),
        }
    };
    wanted.verdicts().into_iter().map(shown).collect()
}

fn owner(wanted: &Wanted, now: Instant) -> String {
    match wanted.owner(now) {
        Owner::None => "none".to_owned(),
        Owner::Connected { pid, silent_ms } => format!("pid {pid} silent {silent_ms}"),
        Owner::Held { left_ms } => format!("held {left_ms}"),
        Owner::Expired => "expired".to_owned(),
    }
}

const CASES: &[Case] = &[
    Case {
        name: "the file alone: a VIP with a service waits for the agent",
        wait_for_agent: false,
        said: &[],
        at: 100,
        verdicts: &["1 +7 file", "2 -undecided"],
        owner: "none",
    },
    Case {
        name: "told to wait for the agent, every VIP waits",
        wait_for_agent: true,
        said: &[],
        at: 100,
        verdicts: &["1 -dataplane-not-ready", "2 -undecided"],
        owner: "none",
    },
    Case {
        name: "the owner's set replaces the file's",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3))],
        at: 4,
        verdicts: &["1 +3 agent", "2 -not-wanted", "3 -no-services"],
        owner: "pid 1 silent 4000",
    },
    Case {
        name: "a live owner keeps others out",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3)), (9, Say::RefusedBy(B, 1))],
        at: 9,
        verdicts: &["1 +3 agent", "2 -not-wanted", "3 -no-services"],
        owner: "pid 1 silent 9000",
    },
    Case {
        name: "an owner that goes is held from its last word on",
        wait_for_agent: false,
        said: &[
            (0, Say::Announce(A, 3)),
            (1, Say::Heard(A)),
            (4, Say::Closed(A)),
        ],
        at: 10,
        verdicts: &["1 +3 agent", "2 -not-wanted", "3 -no-services"],
        owner: "held 1000",
    },
    Case {
        name: "when the hold runs out the set is withdrawn, the file's VIPs too",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3)), (4, Say::Closed(A))],
        at: 10,
        verdicts: &["1 -agent-silent", "2 -not-wanted", "3 -no-services"],
        owner: "expired",
    },
    Case {
        name: "an owner that is connected and silent expires as well",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3))],
        at: 10,
        verdicts: &["1 -agent-silent", "2 -not-wanted", "3 -no-services"],
        owner: "expired",
    },
    Case {
        name: "a silent owner that speaks again has its set back",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3)), (30, Say::Heard(A))],
        at: 31,
        verdicts: &["1 +3 agent", "2 -not-wanted", "3 -no-services"],
        owner: "pid 1 silent 1000",
    },
    Case {
        name: "others' words do not keep an owner alive",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3)), (9, Say::Heard(B))],
        at: 10,
        verdicts: &["1 -agent-silent", "2 -not-wanted", "3 -no-services"],
        owner: "expired",
    },
    Case {
        name: "another takes over from an expired owner, which then owns nothing",
        wait_for_agent: false,
        said: &[
            (0, Say::Announce(A, 3)),
            (30, Say::Announce(B, 4)),
            (31, Say::RefusedBy(A, 2)),
            (32, Say::Closed(A)),
        ],
        at: 33,
        verdicts: &["1 +4 agent", "2 -not-wanted", "3 -no-services"],
        owner: "pid 2 silent 3000",
    },
    Case {
        name: "another takes over from an owner that is gone",
        wait_for_agent: false,
        said: &[
            (0, Say::Announce(A, 3)),
            (1, Say::Closed(A)),
            (2, Say::Announce(B, 3)),
        ],
        at: 11,
        verdicts: &["1 +3 agent", "2 -not-wanted", "3 -no-services"],
        owner: "pid 2 silent 9000",
    },
    Case {
        name: "overrides go before file and owner",
        wait_for_agent: false,
        said: &[
            (0, Say::Announce(A, 3)),
            (0, Say::Withdraw("10.99.0.1")),
            (0, Say::Force("10.99.0.2")),
            (0, Say::Force("10.99.0.9")),
        ],
        at: 1,
        verdicts: &[
            "1 -override",
            "2 +5 override",
            "3 -no-services",
            "9 +5 override",
        ],
        owner: "pid 1 silent 1000",
    },
    Case {
        name: "an override outlives the owner",
        wait_for_agent: false,
        said: &[(0, Say::Announce(A, 3)), (0, Say::Force("10.99.0.1"))],
        at: 60,
        verdicts: &["1 +5 override", "2 -not-wanted", "3 -no-services"],
        owner: "expired",
    },
    Case {
        name: "a cleared override leaves what was said before",
        wait_for_agent: false,
        said: &[
            (0, Say::Withdraw("10.99.0.1")),
            (1, Say::Clear("10.99.0.1")),
        ],
        at: 1,
        verdicts: &["1 +7 file", "2 -undecided"],
        owner: "none",
    },
    Case {
        name: "a stopping speaker announces nothing",
        wait_for_agent: false,
        said: &[(0, Say::Force("10.99.0.9")), (1, Say::Stop)],
        at: 1,
        verdicts: &["1 -stopping", "2 -stopping", "9 -stopping"],
        owner: "none",
    },
];

#[test]
fn what_is_said_decides_what_is_announced() {
    let start = Instant::now();
    for case in CASES {
        let mut wanted = wanted(case.wait_for_agent);
        for (second, what) in case.said {
            let now = start + Duration::from_secs(*second);
            wanted.handle_timeout(now);
            say(&mut wanted, now, *what);
        }
        let now = start + Duration::from_secs(case.at);
        wanted.handle_timeout(now);
        assert_eq!(shown(&wanted), case.verdicts, "{}", case.name);
        assert_eq!(owner(&wanted, now), case.owner, "{}", case.name);
    }
}

#[test]
fn the_timer_is_the_end_of_the_hold() {
    let start = Instant::now();
    let mut wanted = wanted(false);
    assert_eq!(wanted.poll_timeout(), None);
    say(&mut wanted, start, Say::Announce(A, 1));
    let end = start + Duration::from_secs(10);
    assert_eq!(wanted.poll_timeout(), Some(end));
    wanted.handle_timeout(end);
    assert_eq!(wanted.poll_timeout(), None, "an expired set has no timer");
}

#[test]
fn a_set_that_cannot_be_announced_changes_nothing() {
    let start = Instant::now();
    let mut wanted = wanted(false);
    say(&mut wanted, start, Say::Announce(A, 1));
    let before = wanted.verdicts();
    let one = |cost| Announcement {
        vip: vip("10.99.0.1"),
        cost,
        kind: AnnounceAs::Stub,
    };
    let many: Vec<_> = (0..=u32::try_from(isopath_ospf::MAX_STUBS).unwrap())
        .map(|n| Announcement {
            vip: Vip(std::net::Ipv4Addr::from_bits(0x0a00_0001 + n)),
            cost: 1,
            kind: AnnounceAs::Stub,
        })
        .collect();
    let found = many.len();
    let address = vip("10.99.0.1");
    let cases = [
        (vec![one(0)], 1, Refusal::ZeroCost { vip: address }),
        (vec![one(1), one(2)], 1, Refusal::Twice { vip: address }),
        (
            many,
            1,
            Refusal::TooMany {
                what: "as stub links",
                limit: isopath_ospf::MAX_STUBS,
                found,
            },
        ),
        (
            vec![Announcement {
                kind: AnnounceAs::Nssa,
                ..one(1)
            }],
            1,
            Refusal::Kind {
                vip: address,
                kind: AnnounceAs::Nssa,
                area: AreaType::Normal,
                why: "type 7 LSAs are for an NSSA (RFC 3101 §2.2)",
            },
        ),
        (vec![one(1)], 0, Refusal::Hold { found: 0 }),
        (vec![one(1)], u64::MAX, Refusal::Hold { found: u64::MAX }),
    ];
    for (set, hold_ms, refusal) in cases {
        let answer = wanted.announce(start, A, 1, &set, Vec::new(), hold_ms);
        assert_eq!(answer, Err(refusal));
        assert_eq!(wanted.verdicts(), before);
    }
    wanted.stop();
    let answer = wanted.announce(start, A, 1, &[], Vec::new(), 1);
    assert_eq!(answer, Err(Refusal::Stopping));
}
