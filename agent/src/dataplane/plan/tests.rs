use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopath_api::declare::{
    Forwarding, Lvs, Persistence, Scheduler, SchedulerFlag, Tunnel, TunnelChecksum, TunnelKind,
};
use isopath_api::ids::{Protocol, RealServerId, ServiceId, Vip};
use isopath_api::observed::Stats;
use isopath_ipvs::{DestinationSpec, ServiceSpec};

use super::super::ledger::Ledger;
use super::super::observed::{
    Observed, ObservedInterface, destination_spec, service_key, service_spec,
};
use super::super::state::{
    KernelRealServer, KernelService, RealServerWanted, ServiceWanted, Wanted,
};
use super::super::step::{Step, Undone, subjects};
use super::{AtRest, Plan, Planner, Quiesced, goes_by_order, insertions};

const INTERFACE: &str = "isopath";
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const SCHEDULERS: [Scheduler; 13] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::Lblc,
    Scheduler::Lblcr,
    Scheduler::Dh,
    Scheduler::Sh,
    Scheduler::Sed,
    Scheduler::Nq,
    Scheduler::Fo,
    Scheduler::Ovf,
    Scheduler::Mh,
];

/// A kernel that does what `ip_vs_ctl.c` does, with the agent's books beside it.
struct Model {
    observed: Observed,
    /// `last_weight` of each real server, which the kernel shows to nobody.
    table: BTreeMap<(ServiceId, SocketAddr), u32>,
    ledger: Ledger,
    quiesced: Quiesced,
    at_rest: AtRest,
    now: Instant,
}

impl Model {
    fn new() -> Self {
        Self {
            observed: Observed::default(),
            table: BTreeMap::new(),
            ledger: Ledger::default(),
            quiesced: Quiesced::new(),
            at_rest: AtRest::default(),
            now: Instant::now(),
        }
    }

    fn plan(&mut self, wanted: &Wanted) -> Vec<Step> {
        let plan = self.whole_plan(wanted);
        self.at_rest.replace(&plan, wanted, &self.observed);
        plan.steps
    }

    fn whole_plan(&mut self, wanted: &Wanted) -> Plan {
        self.ledger.update(INTERFACE, wanted, &self.observed);
        let mut quiesced = Quiesced::new();
        for (id, service) in self.observed.services.iter() {
            for server in service.real_servers.iter().filter(|it| it.spec.weight == 0) {
                let key = (*id, server.spec.address);
                quiesced.insert(key, self.quiesced.get(&key).copied().unwrap_or(self.now));
            }
        }
        self.quiesced = quiesced;
        Planner {
            interface: INTERFACE,
            observed: &self.observed,
            wanted,
            ledger: &self.ledger,
            quiesced: &self.quiesced,
            at_rest: &self.at_rest,
            now: self.now,
            drain_limit: DRAIN_LIMIT,
        }
        .plan()
    }

    fn execute(&mut self, steps: &[Step], wanted: &Wanted) {
        for step in steps {
            let before = self.observed.clone();
            self.step(step);
            self.ledger.record(step, &before, wanted);
        }
    }

    /// Plans and executes until nothing is left, and returns what was executed.
    fn reconcile(&mut self, wanted: &Wanted) -> Vec<Step> {
        let mut all = Vec::new();
        for _ in 0..5 {
            let steps = self.plan(wanted);
            if steps.is_empty() {
                return all;
            }
            self.execute(&steps, wanted);
            all.extend(steps);
        }
        panic!("no end of steps: {:?}", self.plan(wanted));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::SetSysctl { key, value } => {
                let value = Some((*value).to_owned());
                self.observed.sysctls.insert(key.clone(), value);
            }
            Step::SetTimeouts(timeouts) => self.observed.timeouts = Some(*timeouts),
            Step::AddInterface(name) => {
                let interface = ObservedInterface {
                    up: true,
                    ..ObservedInterface::default()
                };
                let before = self.observed.interfaces.insert(name.clone(), interface);
                assert_eq!(before, None, "{name} was there already");
            }
            Step::RaiseInterface(name) => self.interface(name).up = true,
            Step::AddVip { interface, vip } => {
                assert!(self.interface(interface).vips.insert(*vip), "{vip} twice");
            }
            Step::RemoveVip { interface, vip } => {
                assert!(self.interface(interface).vips.remove(vip), "no {vip}");
            }
            Step::RemoveInterface(name) => {
                let interface = self.observed.interfaces.remove(name).unwrap();
                assert!(interface.vips.is_empty(), "{interface:?} goes with VIPs");
            }
            Step::AddService(id, spec) => {
                let service = KernelService {
                    spec: spec.clone(),
                    stats: Stats::default(),
                    real_servers: Box::default(),
                };
                let before = self.services().insert(*id, Arc::new(service));
                assert_eq!(before, None, "{id} was there already");
            }
            Step::SetService(id, spec) => self.service(*id).spec = spec.clone(),
            Step::DeleteService(id) => {
                let service = self.services().remove(id).unwrap();
                assert_eq!(*service.real_servers, [], "{id} goes with real servers");
            }
            Step::HoldConnections | Step::ReleaseConnections => {}
            Step::AddRealServer(id, spec) => self.insert(*id, in_kernel(spec.clone())),
            Step::ReinsertRealServer(id, spec) => {
                let before = self.remove(*id, spec.address);
                let server = KernelRealServer {
                    spec: spec.clone(),
                    ..before
                };
                self.insert(*id, server);
            }
            Step::SetRealServer(id, spec) | Step::QuiesceRealServer(id, spec) => {
                if spec.weight > 0 {
                    self.table.insert((*id, spec.address), spec.weight);
                }
                let mut servers = self.service(*id).real_servers.iter_mut();
                let server = servers.find(|it| it.spec.address == spec.address);
                server.unwrap().spec = spec.clone();
            }
            Step::DeleteRealServer(id, address) => {
                let server = self.remove(*id, *address);
                assert_eq!(server.spec.weight, 0, "{address} still takes connections");
            }
        }
    }

    fn interface(&mut self, name: &str) -> &mut ObservedInterface {
        self.observed.interfaces.get_mut(name).unwrap()
    }

    fn services(&mut self) -> &mut BTreeMap<ServiceId, Arc<KernelService>> {
        Arc::make_mut(&mut self.observed.services)
    }

    fn service(&mut self, id: ServiceId) -> &mut KernelService {
        Arc::make_mut(self.services().get_mut(&id).unwrap())
    }

    fn insert(&mut self, id: ServiceId, server: KernelRealServer) {
        let address = server.spec.address;
        let there = self.observed.real_server(id, address);
        assert_eq!(there, None, "{address} twice");
        self.table.insert((id, address), server.spec.weight);
        let mut servers = self.service(id).real_servers.to_vec();
        servers.insert(0, server);
        self.service(id).real_servers = servers.into();
    }

    fn remove(&mut self, id: ServiceId, address: SocketAddr) -> KernelRealServer {
        let mut servers = self.service(id).real_servers.to_vec();
        let at = servers.iter().position(|it| it.spec.address == address);
        let removed = servers.remove(at.unwrap());
        self.service(id).real_servers = servers.into();
        removed
    }

    /// Real servers of a service in the kernel's order, by the last byte of their address.
    fn order(&self, id: ServiceId) -> Vec<u8> {
        let servers = self.observed.services[&id].real_servers.iter();
        servers
            .map(|server| last_byte(server.spec.address))
            .collect()
    }

    fn weight(&self, id: ServiceId, number: u8) -> u32 {
        let server = self.observed.real_server(id, server_address(number));
        server.unwrap().spec.weight
    }

    fn connections(&mut self, id: ServiceId, number: u8, active: u32) {
        let mut servers = self.service(id).real_servers.iter_mut();
        let server = servers.find(|it| it.spec.address == server_address(number));
        server.unwrap().active = active;
    }
}

fn in_kernel(spec: DestinationSpec) -> KernelRealServer {
    KernelRealServer {
        spec,
        active: 0,
        inactive: 0,
        stats: Stats::default(),
    }
}

fn last_byte(address: SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => panic!("{address} is no real server of these tests"),
    }
}

fn server_id(number: u8) -> RealServerId {
    RealServerId(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, number), 80))
}

fn server_address(number: u8) -> SocketAddr {
    SocketAddr::V4(server_id(number).0)
}

fn vip(number: u8) -> Vip {
    Vip(Ipv4Addr::new(10, 99, 0, number))
}

fn service_id(number: u8) -> ServiceId {
    ServiceId::to(Protocol::Tcp, vip(number), 80)
}

fn server(number: u8, weight: u16, effective_weight: u16) -> RealServerWanted {
    RealServerWanted {
        id: server_id(number),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        effective_weight,
    }
}

/// One VIP with one service and these healthy real servers of weight 1.
fn web(scheduler: Scheduler, servers: &[u8]) -> Wanted {
    let service = ServiceWanted {
        id: service_id(1),
        scheduler,
        flags: match scheduler {
            Scheduler::Mh => [SchedulerFlag::MhFallback, SchedulerFlag::MhPort].into(),
            _ => [].into(),
        },
        persistence: None,
        forwarding: Forwarding::Dr,
        tunnel: None,
        real_servers: servers.iter().map(|it| server(*it, 1, 1)).collect(),
    };
    Wanted {
        vips: [vip(1)].into(),
        services: [(service.id, Arc::new(service))].into(),
        lvs: Lvs::default(),
    }
}

/// The only service of [`web`].
fn only(wanted: &mut Wanted) -> &mut ServiceWanted {
    Arc::make_mut(wanted.services.get_mut(&service_id(1)).unwrap())
}

/// The kinds of the steps, for tests that are about the order alone.
fn kinds(steps: &[Step]) -> Vec<&'static str> {
    let kind = |step: &Step| match step {
        Step::SetSysctl { .. } => "sysctl",
        Step::SetTimeouts(_) => "timeouts",
        Step::AddInterface(_) => "+interface",
        Step::RaiseInterface(_) => "interface up",
        Step::AddVip { .. } => "+vip",
        Step::AddService(..) => "+service",
        Step::SetService(..) => "service",
        Step::HoldConnections => "hold",
        Step::AddRealServer(..) => "+server",
        Step::ReinsertRealServer(..) => "±server",
        Step::ReleaseConnections => "release",
        Step::SetRealServer(..) => "server",
        Step::QuiesceRealServer(..) => "quiesce",
        Step::DeleteRealServer(..) => "-server",
        Step::DeleteService(_) => "-service",
        Step::RemoveVip { .. } => "-vip",
        Step::RemoveInterface(_) => "-interface",
    };
    let mut kinds: Vec<_> = steps.iter().map(kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn coming_up_and_going_down_keep_their_order() {
    let mut model = Model::new();
    let up = model.reconcile(&web(Scheduler::Rr, &[1, 2]));
    let expected = [
        "sysctl",
        "timeouts",
        "+interface",
        "+vip",
        "+service",
        "+server",
    ];
    assert_eq!(kinds(&up), expected);
    let down = model.reconcile(&Wanted::default());
    let expected = ["quiesce", "-server", "-service", "-vip", "-interface"];
    assert_eq!(kinds(&down), expected);
    assert_eq!(model.ledger, Ledger::default(), "nothing is owned any more");
}

#[test]
fn an_agent_that_starts_on_its_ledger_changes_nothing() {
    let wanted = web(Scheduler::Mh, &[3, 1, 2]);
    let mut model = Model::new();
    model.reconcile(&wanted);
    model.quiesced.clear();
    assert_eq!(model.plan(&wanted), []);
}

#[test]
fn what_is_not_ours_stays() {
    let foreign = service_id(9);
    let mut model = Model::new();
    model.step(&Step::AddService(
        foreign,
        ServiceSpec::new(service_key(foreign), "wlc"),
    ));
    let spec = DestinationSpec::new(server_address(7), isopath_ipvs::Forwarding::Masquerade, 5);
    model.step(&Step::AddRealServer(foreign, spec));
    let before = model.observed.services[&foreign].clone();
    model.reconcile(&web(Scheduler::Mh, &[1, 2]));
    model.interface(INTERFACE).vips.insert(vip(9));
    model.reconcile(&Wanted::default());
    assert_eq!(model.observed.services[&foreign], before);
    let interface = &model.observed.interfaces[INTERFACE];
    assert_eq!(
        interface.vips,
        [vip(9)].into(),
        "its interface stays with it"
    );
}

#[test]
fn a_removed_real_server_waits_for_its_connections_up_to_the_limit() {
    let id = service_id(1);
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Rr, &[1, 2, 3]));
    model.connections(id, 2, 5);
    model.connections(id, 3, 5);

    let fewer = web(Scheduler::Rr, &[1]);
    let steps = model.reconcile(&fewer);
    assert_eq!(kinds(&steps), ["quiesce"]);
    assert_eq!((model.weight(id, 2), model.weight(id, 3)), (0, 0));

    model.connections(id, 2, 0);
    let gone = Step::DeleteRealServer(id, server_address(2));
    assert_eq!(model.reconcile(&fewer), [gone]);
    model.now += DRAIN_LIMIT - Duration::from_millis(1);
    assert_eq!(model.reconcile(&fewer), []);
    model.now += Duration::from_millis(1);
    let gone = Step::DeleteRealServer(id, server_address(3));
    assert_eq!(model.reconcile(&fewer), [gone]);
}

#[test]
fn a_real_server_that_comes_back_while_it_drains_is_only_given_its_weight() {
    let id = service_id(1);
    let both = web(Scheduler::Mh, &[1, 2]);
    let mut model = Model::new();
    model.reconcile(&both);
    model.connections(id, 2, 5);
    model.reconcile(&web(Scheduler::Mh, &[1]));
    let steps = model.reconcile(&both);
    assert_eq!(kinds(&steps), ["server"]);
    assert_eq!(model.weight(id, 2), 1);
}

#[test]
fn the_last_real_server_is_replaced_without_a_gap() {
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Rr, &[1]));
    let steps = model.plan(&web(Scheduler::Rr, &[2]));
    assert_eq!(kinds(&steps), ["+server", "quiesce"]);
}

#[test]
fn the_kernels_list_is_in_canonical_order_for_mh_however_it_came_about() {
    let id = service_id(1);
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Mh, &[5, 3, 9]));
    assert_eq!(model.order(id), [9, 5, 3]);
    // The highest address goes to the head by itself.
    let steps = model.reconcile(&web(Scheduler::Mh, &[5, 3, 9, 11]));
    assert_eq!(kinds(&steps), ["+server"]);
    assert_eq!(model.order(id), [11, 9, 5, 3]);
    // One in the middle takes those above it along.
    model.connections(id, 9, 1);
    let steps = model.reconcile(&web(Scheduler::Mh, &[5, 3, 9, 11, 7]));
    assert_eq!(kinds(&steps), ["hold", "+server", "±server", "release"]);
    assert_eq!(model.order(id), [11, 9, 7, 5, 3]);
    assert_eq!(steps.len(), 5, "5 and 3 stay where they are: {steps:?}");
}

#[test]
fn other_schedulers_lists_are_left_in_their_order() {
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Wlc, &[5, 9]));
    let steps = model.reconcile(&web(Scheduler::Wlc, &[5, 9, 7]));
    assert_eq!(kinds(&steps), ["+server"]);
    assert_eq!(model.order(service_id(1)), [7, 9, 5]);
    // They are put right when the scheduler becomes mh.
    model.reconcile(&web(Scheduler::Mh, &[5, 9, 7]));
    assert_eq!(model.order(service_id(1)), [9, 7, 5]);
}

#[test]
fn a_list_is_put_in_order_for_the_schedulers_that_go_by_it() {
    for scheduler in SCHEDULERS {
        let mut model = Model::new();
        model.reconcile(&web(scheduler, &[5, 9]));
        model.reconcile(&web(scheduler, &[5, 9, 7]));
        let canonical = model.order(service_id(1)) == [9, 7, 5];
        assert_eq!(canonical, goes_by_order(scheduler), "{scheduler}");
    }
}

#[test]
fn an_old_real_server_serves_on_when_none_could_be_added_in_its_place() {
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Rr, &[1]));
    let steps = model.plan(&web(Scheduler::Rr, &[2]));
    let mut undone = Undone::default();
    let add = steps
        .iter()
        .find(|it| matches!(it, Step::AddRealServer(..)));
    undone.add(add.unwrap());
    let quiesce = |it: &&Step| matches!(it, Step::QuiesceRealServer(..));
    assert!(
        undone.hinders(steps.iter().find(quiesce).unwrap()),
        "{steps:?}"
    );
    // A dead one is taken off all the same.
    let mut dead = web(Scheduler::Rr, &[1, 2]);
    only(&mut dead).real_servers[0].effective_weight = 0;
    let steps = model.plan(&dead);
    let set = |it: &&Step| matches!(it, Step::SetRealServer(..));
    assert!(
        !undone.hinders(steps.iter().find(set).unwrap()),
        "{steps:?}"
    );
}

#[test]
fn forwarding_persistence_and_scheduler_are_edited_in_place() {
    let mut model = Model::new();
    model.reconcile(&web(Scheduler::Rr, &[1, 2]));
    model.connections(service_id(1), 1, 5);
    let mut wanted = web(Scheduler::Wlc, &[1, 2]);
    let service = only(&mut wanted);
    service.forwarding = Forwarding::Nat;
    service.persistence = Some(Persistence {
        timeout: Duration::from_secs(50),
        netmask: None,
    });
    let steps = model.reconcile(&wanted);
    assert_eq!(kinds(&steps), ["service", "server"]);
    assert_eq!(steps.len(), 3, "{steps:?}");
}

#[test]
fn what_needs_nothing_is_not_looked_at_again_while_it_stays() {
    let mut wanted = web(Scheduler::Mh, &[1, 2]);
    let mut model = Model::new();
    model.reconcile(&wanted);
    let plan = model.whole_plan(&wanted);
    assert_eq!(plan.at_rest, [service_id(1)]);
    model.at_rest.replace(&plan, &wanted, &model.observed);
    let pair = |wanted: &Wanted, model: &Model| {
        let id = service_id(1);
        let (shall, has) = (&wanted.services[&id], &model.observed.services[&id]);
        model.at_rest.has(shall, has)
    };
    assert!(pair(&wanted, &model));
    only(&mut wanted).real_servers[0].weight = 2;
    assert!(
        !pair(&wanted, &model),
        "another allocation is another service"
    );
    // One that waits for connections to end is not at rest, since time alone changes its plan.
    model.connections(service_id(1), 2, 5);
    model.reconcile(&web(Scheduler::Mh, &[1]));
    assert_eq!(model.whole_plan(&web(Scheduler::Mh, &[1])).at_rest, []);
}

#[test]
fn insertions_keep_as_much_of_the_kernels_list_as_can_stay() {
    // The kernel's list, what it shall hold, what is inserted.
    let cases: [(&[u8], &[u8], &[u8]); 7] = [
        (&[], &[1, 2, 3], &[1, 2, 3]),
        (&[3, 2, 1], &[1, 2, 3], &[]),
        (&[1, 2, 3], &[1, 2, 3], &[2, 3]),
        (&[2, 3, 1], &[1, 2, 3], &[3]),
        (&[3, 1], &[1, 2, 3], &[2, 3]),
        (&[3, 2], &[1, 2, 3], &[1, 2, 3]),
        (&[4, 3, 2, 1], &[1, 3], &[]),
    ];
    for (present, shall, expected) in cases {
        let addresses = |numbers: &[u8]| -> Vec<SocketAddr> {
            numbers.iter().map(|it| server_address(*it)).collect()
        };
        let shall = addresses(shall).into_iter();
        let inserted = insertions(Scheduler::Mh, &addresses(present), shall);
        assert_eq!(inserted, addresses(expected), "the kernel has {present:?}");
    }
}

#[test]
fn a_real_server_that_is_dead_when_it_is_added_is_in_mhs_table() {
    let id = service_id(1);
    let mut wanted = web(Scheduler::Mh, &[1, 2]);
    only(&mut wanted).real_servers[1] = server(2, 5, 0);
    let mut model = Model::new();
    model.reconcile(&wanted);
    assert_eq!(model.weight(id, 2), 0);
    assert_eq!(model.table[&(id, server_address(2))], 5);

    // A declared weight that changes meanwhile changes the table on every director.
    only(&mut wanted).real_servers[1] = server(2, 7, 0);
    model.reconcile(&wanted);
    assert_eq!(model.weight(id, 2), 0);
    assert_eq!(model.table[&(id, server_address(2))], 7);
    assert_eq!(model.plan(&wanted), []);
}

/// Under another scheduler whose list is in order it was inserted anew while it was dead.
#[test]
fn a_real_server_that_was_reinserted_while_it_was_dead_is_in_mhs_table() {
    let id = service_id(1);
    let mut mh = web(Scheduler::Mh, &[2]);
    only(&mut mh).real_servers[0] = server(2, 5, 0);
    let mut dh = web(Scheduler::Dh, &[1, 2]);
    only(&mut dh).real_servers[1] = server(2, 0, 0);
    let mut model = Model::new();
    model.reconcile(&mh);
    let steps = model.reconcile(&dh);
    let again = |step: &Step| matches!(step, Step::ReinsertRealServer(..));
    assert!(steps.iter().any(again), "{steps:?}");
    model.reconcile(&mh);
    assert_eq!(model.weight(id, 2), 0);
    assert_eq!(model.table[&(id, server_address(2))], 5);
}

#[test]
fn a_dead_real_server_keeps_its_place_and_is_no_removal() {
    let id = service_id(1);
    let mut wanted = web(Scheduler::Mh, &[1, 2]);
    let mut model = Model::new();
    model.reconcile(&wanted);
    only(&mut wanted).real_servers[1].effective_weight = 0;
    let steps = model.reconcile(&wanted);
    let dead = DestinationSpec::new(server_address(2), isopath_ipvs::Forwarding::DirectRoute, 0);
    assert_eq!(steps, [Step::SetRealServer(id, dead)]);
    model.now += 2 * DRAIN_LIMIT;
    assert_eq!(
        model.plan(&wanted),
        [],
        "it waits for its health, not for the limit"
    );
    assert_eq!(model.order(id), [2, 1]);
}

#[test]
fn what_changed_behind_our_back_is_found_and_put_right() {
    let id = service_id(1);
    let wanted = web(Scheduler::Mh, &[1, 2]);
    type Damage = fn(&mut Model);
    let damages: [(&str, Damage); 7] = [
        ("a flag", |model| {
            let service = model.service(service_id(1));
            service.spec.flags = isopath_ipvs::ServiceFlags::NONE;
        }),
        ("a weight", |model| {
            model.service(service_id(1)).real_servers[0].spec.weight = 9;
        }),
        ("a service", |model| {
            model.services().clear();
        }),
        ("a real server", |model| {
            model.remove(service_id(1), server_address(2));
        }),
        ("a VIP", |model| model.interface(INTERFACE).vips.clear()),
        ("the interface", |model| model.observed.interfaces.clear()),
        ("a sysctl", |model| {
            let key = "net/ipv4/vs/sloppy_tcp".to_owned();
            model.observed.sysctls.insert(key, Some("0".to_owned()));
        }),
    ];
    for (what, damage) in damages {
        let mut model = Model::new();
        model.reconcile(&wanted);
        let good = model.observed.clone();
        damage(&mut model);
        let drift = model.plan(&wanted);
        assert!(!subjects(&drift).is_empty(), "{what} was not missed");
        model.reconcile(&wanted);
        assert_eq!(model.observed, good, "{what} was not put right");
        assert_eq!(model.order(id), [2, 1]);
    }
}

#[test]
fn a_foreign_real_server_in_a_service_of_ours_drains_away() {
    let id = service_id(1);
    let wanted = web(Scheduler::Mh, &[1, 2]);
    let mut model = Model::new();
    model.reconcile(&wanted);
    let spec = DestinationSpec::new(server_address(9), isopath_ipvs::Forwarding::Masquerade, 5);
    model.step(&Step::AddRealServer(id, spec));
    let steps = model.reconcile(&wanted);
    assert_eq!(kinds(&steps), ["quiesce", "-server"]);
    assert_eq!(model.order(id), [2, 1]);
}

#[test]
fn vips_move_to_an_interface_with_another_name() {
    let wanted = web(Scheduler::Rr, &[1]);
    let mut model = Model::new();
    model.reconcile(&wanted);
    model.ledger.update("vips", &wanted, &model.observed);
    let steps = Planner {
        interface: "vips",
        observed: &model.observed,
        wanted: &wanted,
        ledger: &model.ledger,
        quiesced: &Quiesced::new(),
        at_rest: &AtRest::default(),
        now: model.now,
        drain_limit: DRAIN_LIMIT,
    }
    .plan()
    .steps;
    let expected = ["+interface", "+vip", "-vip", "-interface"];
    assert_eq!(kinds(&steps), expected);
    model.execute(&steps, &wanted);
    let names: Vec<_> = model.observed.interfaces.keys().collect();
    assert_eq!(names, ["vips"]);
}

mod properties;
