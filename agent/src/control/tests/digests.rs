//! A kernel that places clients elsewhere than the controller expects.

use isopath_api::declare::{LvsSpec, Profile};

use super::*;

const EXPECTED: &str = "0100";
const OTHER: &str = "0101";
const LATER: &str = "0200";

/// The same intent in the stateless profile with a digest that is expected.
fn stateless(change: impl FnOnce(&mut Intent)) -> Arc<Intent> {
    intent(|intent| {
        intent.lvs = LvsSpec::default().resolve(2);
        let expected = EXPECTED.parse().unwrap();
        intent.digests = [(service(), expected)].into();
        change(intent);
    })
}

/// A kernel that has what is wanted, with this digest of it.
fn kernel_with(number: u64, digest: &str) -> Arc<KernelReport> {
    let mut report = (*kernel_has(number)).clone();
    let digest = digest.parse().unwrap();
    report.report.digests = Arc::new([(service(), digest)].into());
    Arc::new(report)
}

/// Healthy and announced, with the number of what the kernel was asked for.
fn announced(intent: Arc<Intent>) -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.state.apply(intent, NOW);
    bench.state.take_speaker(connected(&[]));
    bench.checked(11, true);
    bench.checked(12, true);
    let number = bench.state.settle(NOW).expect("something to do").number;
    bench.state.take_kernel(kernel_with(number, EXPECTED));
    bench.state.take_gate(gate_found(number, &[]));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy");
    (bench, number)
}

#[tokio::test]
async fn a_director_that_differs_does_not_announce_until_it_differs_no_more() {
    let (mut bench, number) = announced(stateless(|_| {}));
    let is_news = bench.state.take_kernel(kernel_with(number, OTHER));
    assert!(is_news, "a digest alone can withdraw a VIP");
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw digest-mismatch");
    let reason = &bench.state.decisions[&vip()].decision.reason;
    let expected = Reason::DigestMismatch {
        service: service(),
        expected: EXPECTED.parse().unwrap(),
        found: OTHER.parse().unwrap(),
    };
    assert_eq!(*reason, expected);

    bench.checked(12, false);
    let next = bench.state.settle(NOW).expect("a weight changed").number;
    assert_eq!(
        bench.decision(),
        "withdraw digest-mismatch",
        "a change of health mends nothing"
    );
    bench.state.take_kernel(kernel_with(next, EXPECTED));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy");
}

#[tokio::test]
async fn a_change_that_is_being_executed_withdraws_nothing() {
    let (mut bench, number) = announced(stateless(|_| {}));
    let next = stateless(|next| {
        next.generation = 2;
        Arc::make_mut(&mut next.services[0]).real_server.pop();
        next.digests = [(service(), OTHER.parse().unwrap())].into();
    });
    bench.state.apply(next, NOW);
    let wanted = bench.state.settle(NOW).expect("a real server less");
    assert_eq!(bench.decision(), "announce healthy", "the kernel is behind");
    assert_eq!(
        bench.state.observed(NOW, None).services[0].digest,
        None,
        "what the kernel has is about to be something else"
    );
    bench.state.take_kernel(kernel_with(number, EXPECTED));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy", "and it still is");
    bench.state.take_kernel(kernel_with(wanted.number, OTHER));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy");
    let reported = bench.state.observed(NOW, None).services[0].digest.clone();
    assert_eq!(reported, Some(OTHER.parse().unwrap()));
}

#[tokio::test]
async fn only_a_difference_that_means_something_withdraws() {
    let stateful = stateless(|it| it.lvs.profile = Profile::Stateful);
    for (what, intent, found) in [
        ("connections are each director's own", stateful, OTHER),
        ("another version's digest", stateless(|_| {}), LATER),
    ] {
        let (mut bench, number) = announced(intent);
        bench.state.take_kernel(kernel_with(number, found));
        bench.state.settle(NOW);
        assert_eq!(bench.decision(), "announce healthy", "{what}");
    }
}

#[tokio::test]
async fn a_restarted_agent_whose_kernel_differs_does_not_go_on_announcing() {
    let mut bench = Bench::new();
    bench.state.apply(stateless(|_| {}), NOW);
    bench.state.take_speaker(connected(&[Source::Agent]));
    bench.checked(11, true);
    bench.checked(12, true);
    let number = bench.state.settle(NOW).expect("something to do").number;
    assert_eq!(bench.decision(), "announce held-over-restart");
    bench.state.take_kernel(kernel_with(number, OTHER));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw digest-mismatch");
}
