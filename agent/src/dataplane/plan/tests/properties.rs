//! What holds for every change, whatever is wanted and wherever it ends.

use proptest::prelude::*;

use super::*;

/// Half of them `mh`, which has the most to go wrong.
fn any_scheduler() -> impl Strategy<Value = Scheduler> {
    prop_oneof![
        Just(Scheduler::Mh),
        proptest::sample::select(SCHEDULERS.to_vec()),
    ]
}

fn any_forwarding() -> impl Strategy<Value = (Forwarding, Option<Tunnel>)> {
    let gue = Tunnel {
        kind: TunnelKind::Gue,
        port: Some(6080),
        checksum: TunnelChecksum::Remcsum,
    };
    proptest::sample::select(vec![
        (Forwarding::Dr, None),
        (Forwarding::Nat, None),
        (Forwarding::Tun, None),
        (Forwarding::Tun, Some(gue)),
    ])
}

fn any_persistence() -> impl Strategy<Value = Option<Persistence>> {
    let persistence = |seconds: u64, netmask: &str| Persistence {
        timeout: Duration::from_secs(seconds),
        netmask: Some(netmask.parse().unwrap()),
    };
    let all = vec![
        None,
        Some(persistence(50, "255.255.255.255")),
        Some(persistence(60, "255.255.255.0")),
    ];
    proptest::sample::select(all)
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let real_server = (0..4_u16, any::<bool>(), 0..3_u32);
    let real_servers = proptest::collection::btree_map(1..8_u8, real_server, 0..6);
    let flags = proptest::sample::subsequence(
        vec![SchedulerFlag::MhFallback, SchedulerFlag::MhPort],
        0..=2,
    );
    let parts = (any_scheduler(), flags, any_forwarding(), any_persistence());
    let service = (parts, real_servers).prop_map(
        |((scheduler, flags, (forwarding, tunnel), persistence), servers)| {
            let servers = servers.into_iter();
            let servers = servers.map(|(number, (weight, alive, threshold))| RealServerWanted {
                upper_threshold: 10 * threshold,
                lower_threshold: 8 * threshold,
                ..server(number, weight, if alive { weight } else { 0 })
            });
            ServiceWanted {
                id: service_id(0),
                scheduler,
                flags: flags.into_iter().collect(),
                persistence,
                forwarding,
                tunnel,
                real_servers: servers.collect(),
            }
        },
    );
    proptest::collection::btree_map(1..5_u8, service, 0..4).prop_map(|services| {
        let services = services.into_iter().map(|(number, service)| {
            let id = service_id(number);
            (id, Arc::new(ServiceWanted { id, ..service }))
        });
        let services: BTreeMap<_, _> = services.collect();
        Wanted {
            vips: services.keys().map(|id| id.vip).collect(),
            services,
            lvs: Lvs::default(),
        }
    })
}

/// Holds what the kernel has against what is wanted, without asking the planner.
fn check(model: &Model, wanted: &Wanted) {
    let interface = model.observed.interfaces.get(INTERFACE);
    let vips = interface.map(|it| it.vips.clone()).unwrap_or_default();
    assert_eq!(vips, wanted.vips);
    let kernel: Vec<_> = model.observed.services.keys().collect();
    assert_eq!(kernel, wanted.services.keys().collect::<Vec<_>>());
    for service in wanted.services.values() {
        let observed = &model.observed.services[&service.id];
        assert_eq!(observed.spec, service_spec(service));
        if goes_by_order(service.scheduler) {
            let order = model.order(service.id);
            assert!(
                order.is_sorted_by(|a, b| a > b),
                "{order:?} is not canonical"
            );
        }
        if service.scheduler == Scheduler::Mh {
            for server in &service.real_servers {
                let table = model.table[&(service.id, SocketAddr::V4(server.id.0))];
                let declared = u32::from(server.weight);
                assert!(declared == 0 || table == declared, "{table} for {server:?}");
            }
        }
        let shall: BTreeMap<_, _> = service
            .real_servers
            .iter()
            .map(|it| (it.id, destination_spec(service, *it)))
            .collect();
        let servers = observed.real_servers.iter();
        let has: BTreeMap<_, _> = servers
            .map(|server| (server.id().unwrap(), server.spec.clone()))
            .collect();
        assert_eq!(has, shall);
    }
    let timeouts = model.observed.timeouts;
    let shall = (!wanted.is_empty()).then(|| timeouts_of(wanted));
    assert!(wanted.is_empty() || timeouts == shall, "{timeouts:?}");
}

fn timeouts_of(wanted: &Wanted) -> isopath_ipvs::Timeouts {
    super::super::timeouts(&wanted.lvs.timeouts)
}

proptest! {
    #[test]
    fn any_change_reaches_what_is_wanted_and_then_nothing_is_left_to_do(
        all in proptest::collection::vec((any_wanted(), any::<bool>()), 1..5),
    ) {
        // The model itself refuses to delete what takes connections, and to add twice.
        let mut model = Model::new();
        for (wanted, restarts) in all {
            if restarts {
                model.quiesced.clear();
            }
            model.reconcile(&wanted);
            check(&model, &wanted);
            prop_assert_eq!(model.plan(&wanted), []);
        }
    }

    #[test]
    fn a_crash_after_any_step_is_recovered_from(
        first in any_wanted(), second in any_wanted(), third in any_wanted(), steps in 0..12_usize,
    ) {
        let mut model = Model::new();
        model.reconcile(&first);
        let plan = model.plan(&second);
        // The ledger was saved before the steps; what they recorded is lost.
        let saved = model.ledger.ahead_of(&plan);
        for step in plan.iter().take(steps) {
            model.step(step);
        }
        model.ledger = saved;
        model.quiesced.clear();
        for wanted in [second, third] {
            model.reconcile(&wanted);
            check(&model, &wanted);
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_rest_reachable(
        first in any_wanted(), second in any_wanted(), fails in 0..12_usize,
    ) {
        let mut model = Model::new();
        model.reconcile(&first);
        let plan = model.plan(&second);
        let mut undone = Undone::default();
        for (at, step) in plan.iter().enumerate() {
            if at == fails || undone.hinders(step) {
                undone.add(step);
            } else {
                model.execute(std::slice::from_ref(step), &second);
            }
        }
        model.reconcile(&second);
        check(&model, &second);
    }
}
