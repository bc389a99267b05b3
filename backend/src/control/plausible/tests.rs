use std::time::Duration;

use isopath_api::paths::Width;

use super::*;
use crate::testing::{EPOCH, Known, observed};

/// What becomes of a report of d1 after `last`, which was taken; the director is at generation 5.
fn after(last: Option<Observed>, report: Observed) -> Option<(Refused, Error)> {
    let mut known = Known::new(1);
    known.director(1).generation = 5;
    if let Some(last) = last {
        known.hear(last);
    }
    let director = known.director(1).clone();
    let now = Timestamp::now();
    refusal(&report, &known.cluster, &director, now)
}

fn report(sequence: u64, epoch: Option<&str>, generation: u64) -> Observed {
    Observed {
        sequence,
        epoch: epoch.map(str::to_owned),
        generation,
        ..observed(1, &[1])
    }
}

fn code(refused: Option<(Refused, Error)>) -> Option<Refused> {
    refused.map(|(code, _)| code)
}

#[test]
fn an_agent_that_is_rightly_behind_is_heard() {
    let last = || Some(report(7, Some(EPOCH), 4));
    for (rightly, last, report) in [
        ("goes on", last(), report(8, Some(EPOCH), 4)),
        ("follows", last(), report(8, Some(EPOCH), 5)),
        ("is behind", None, report(1, Some(EPOCH), 1)),
        ("has nothing yet", None, report(1, None, 0)),
        (
            "follows a lost database",
            None,
            report(1, Some("older"), 90),
        ),
        (
            "takes a new epoch over",
            Some(report(7, Some("older"), 90)),
            report(8, Some(EPOCH), 5),
        ),
        (
            "follows a lost database still",
            Some(report(7, Some("older"), 90)),
            report(8, Some("older"), 90),
        ),
    ] {
        let refused = after(last, report);
        assert!(refused.is_none(), "one that {rightly}: {refused:?}");
    }
    // It was restarted with what it had on its disk.
    let mut restarted = report(1, Some("older"), 3);
    restarted.run = "run-2".to_owned();
    assert!(after(last(), restarted).is_none());
}

#[test]
fn an_older_generation_is_refused() {
    let last = || Some(report(7, Some(EPOCH), 4));
    for (expected, report) in [
        (Refused::Overtaken, report(6, Some(EPOCH), 4)),
        (Refused::GenerationBack, report(8, Some(EPOCH), 3)),
        (Refused::EpochBack, report(8, Some("older"), 9)),
        (Refused::EpochBack, report(8, None, 0)),
        (Refused::GenerationAhead, report(8, Some(EPOCH), 6)),
    ] {
        assert_eq!(code(after(last(), report)), Some(expected));
    }
    // Ahead is ahead, whoever says so.
    let ahead = after(None, report(1, Some(EPOCH), 6));
    let (code, error) = ahead.unwrap();
    assert_eq!(code, Refused::GenerationAhead);
    let words = "generation 6 is in force there, and this controller gave out 5 at most";
    assert_eq!(error.to_string(), words);
}

#[test]
fn the_last_report_sent_once_more_is_no_older_one() {
    let mut known = Known::new(1);
    known.hear(report(7, Some(EPOCH), 1));
    let director = known.director(1).clone();
    assert!(is_repeated(&report(7, Some(EPOCH), 1), &director));
    assert!(!is_repeated(&report(8, Some(EPOCH), 1), &director));
}

#[test]
fn what_cannot_be_has_its_pointer() {
    type Break = fn(&mut Observed);
    let year = Duration::from_secs(367 * 24 * 60 * 60);
    let late = |report: &mut Observed| report.at = Timestamp::UNIX_EPOCH;
    let early = move |report: &mut Observed| report.at += year;
    let broken: [(&str, Break); 11] = [
        ("/at", late),
        ("/instance", |it| it.instance = String::new()),
        ("/run", |it| it.run = "r".repeat(65)),
        ("/version", |it| it.version = "1 0".to_owned()),
        ("/epoch", |it| it.epoch = Some("\u{e9}".to_owned())),
        ("/sequence", |it| it.sequence = u64::MAX),
        ("/generation", |it| it.generation = 1 << 53),
        ("/dataplane/failures", |it| {
            it.dataplane.failures = vec![String::new(); 257];
        }),
        ("/speaker/widths", |it| {
            let widths = &mut it.speaker.as_mut().unwrap().widths;
            let switch = |n| Width {
                router_id: format!("10.9.0.{n}").parse().unwrap(),
                ..widths[0].clone()
            };
            *widths = (0..65).map(switch).collect();
        }),
        ("/services/0/stats/connections_per_second", |it| {
            it.services[0].stats = Some(Stats {
                connections_per_second: u64::MAX,
                ..Stats::default()
            });
        }),
        ("/services/0/real_servers/1/stats/in_bytes", |it| {
            it.services[0].real_servers[1].stats = Some(Stats {
                in_bytes: u64::MAX,
                ..Stats::default()
            });
        }),
    ];
    let mut reports: Vec<_> = broken
        .into_iter()
        .map(|(pointer, break_it)| {
            let mut it = report(1, None, 0);
            break_it(&mut it);
            (pointer, it)
        })
        .collect();
    let mut it = report(1, None, 0);
    early(&mut it);
    reports.push(("/at", it));
    for (pointer, report) in reports {
        let Some((Refused::Absurd, Error::Invalid { faults })) = after(None, report) else {
            panic!("{pointer} is taken");
        };
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer]);
    }
}

#[test]
fn what_is_not_declared_needs_an_explanation() {
    let stranger = |generation| {
        let mut it = report(1, Some(EPOCH), generation);
        it.vips[0].vip = "10.99.0.9".parse().unwrap();
        it.services[0].service = "tcp:10.99.0.9:80".parse().unwrap();
        it
    };
    let Some((Refused::Undeclared, Error::Invalid { faults })) = after(None, stranger(5)) else {
        panic!("it is taken");
    };
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/vips/0/vip", "/services/0/service"]);
    assert!(after(None, stranger(4)).is_none(), "an earlier one had it");
    let mut by_hand = stranger(5);
    by_hand.services.clear();
    by_hand.vips[0].reason = Reason::Override {
        text: String::new(),
    };
    assert!(after(None, by_hand.clone()).is_none(), "an operator did it");
    by_hand.vips[0].reason = Reason::NotWanted;
    by_hand.vips[0].cost = None;
    assert!(after(None, by_hand).is_none(), "it is on its way out");
}
