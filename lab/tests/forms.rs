//! The forms of the classic LVS deployment, each from the files of its folder in
//! `deploy/examples/`, with real nginx, FRR and IPVS. The seventh, the cluster, is brought up by
//! `e2e.rs`.
//!
//! It needs a kernel with IPVS: `scripts/test-ipvs` runs it on this one or in a virtual machine.
//! Each test has a network of its own and mostly waits, so that they run side by side:
//! test-ipvs: --test-threads=4

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use isopath_api::ids::Vip;
use isopath_lab::classic::{Classic, Host, LanDirector, SWITCH, lan};
use isopath_lab::plan::CLIENT;
use isopath_lab::process::Process;
use isopath_lab::report::say;
use isopath_lab::topology::Spec;
use isopath_lab::wait::{self, Probe};

/// The VIP of every form.
const VIP: Vip = Vip(lan(100));

/// The second one of the dual primary.
const SECOND: Vip = Vip(lan(101));

/// How long checks, IPVS or OSPF may take to follow what happened.
const SOON: Duration = Duration::from_secs(20);

/// A network, and who tells how far the work in it is.
struct Form<'a> {
    classic: &'a mut Classic,
    name: &'static str,
    started: Instant,
}

impl Form<'_> {
    fn step(&self, what: impl std::fmt::Display) {
        let passed = self.started.elapsed().as_secs_f64();
        say(format_args!("{} {passed:5.1} s: {what}", self.name));
    }
}

/// Makes a network for a form where IPVS can be had.
fn form(name: &'static str, work: impl FnOnce(&mut Form<'_>) -> Result<()>) -> Result<()> {
    if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
        say(format_args!(
            "SKIPPED: {name}: ISOPATH_TEST_IPVS is not set, which make test-ipvs sets"
        ));
        return Ok(());
    }
    let Some(spec) = Spec::for_test(name) else {
        return Ok(());
    };
    let started = Instant::now();
    let whole = |classic: &mut Classic| {
        let mut form = Form {
            classic,
            name,
            started,
        };
        work(&mut form)?;
        form.step("done");
        Ok(())
    };
    Classic::with(&spec.name, whole).with_context(|| name.to_owned())
}

/// A web server: a real server's host and its nginx.
struct Web {
    host: Host,
    nginx: Option<Process>,
}

impl Web {
    fn start(&mut self, site: &str) -> Result<()> {
        ensure!(self.nginx.is_none(), "{} runs already", self.host.name());
        self.nginx = Some(self.host.start_nginx(site)?);
        Ok(())
    }

    fn crash(&mut self) -> Result<()> {
        let nginx = self.nginx.take();
        nginx
            .with_context(|| format!("{} does not run", self.host.name()))?
            .crash()
    }

    /// Sets the host up for the directors' packets by the example's file, or takes that away.
    fn real_server(&self, verb: &str, example: &str) -> Result<()> {
        let output = self.host.real_server(verb, example)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: real-server {verb} {example}: {said}{error}",
            self.host.name()
        );
        Ok(())
    }

    /// Sets the host up and has it checked.
    fn up(&self, example: &str) -> Result<()> {
        self.real_server("up", example)?;
        self.real_server("status", example)
    }
}

/// The real servers .3 and .4, with nginx.
fn two_webs(classic: &Classic) -> Result<[Web; 2]> {
    let web = |name, n| -> Result<Web> {
        let mut web = Web {
            host: classic.host(name, n)?,
            nginx: None,
        };
        web.start(PLAIN_SITE)?;
        Ok(web)
    };
    Ok([web("web3", 3)?, web("web4", 4)?])
}

const PLAIN_SITE: &str = "real-server/site.conf";
const L7_SITE: &str = "l7/site.conf";

#[test]
fn one_director_forwards_directly_and_through_a_tunnel() -> Result<()> {
    form("forms-dr-tun", |form| {
        let (mut director, mut webs) = one_director_and_webs(form)?;
        for (folder, method) in [("one-director", Method::Dr), ("tun", Method::Tun)] {
            one_director(form, &mut director, &mut webs, folder, method)
                .with_context(|| folder.to_owned())?;
        }
        Ok(())
    })
}

#[test]
fn one_director_forwards_by_nat_and_to_proxies() -> Result<()> {
    form("forms-nat-l7", |form| {
        let (mut director, mut webs) = one_director_and_webs(form)?;
        one_director(form, &mut director, &mut webs, "nat", Method::Nat).context("nat")?;
        proxies(form, &mut director, &mut webs).context("l7")
    })
}

fn one_director_and_webs(form: &mut Form<'_>) -> Result<(LanDirector, [Web; 2])> {
    form.classic.switch.start()?;
    let webs = two_webs(form.classic)?;
    form.step("switch and nginx run");
    Ok((LanDirector::new(form.classic.host("d1", 8)?), webs))
}

/// How a director forwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Dr,
    Tun,
    Nat,
}

impl Method {
    fn real_server(self) -> &'static str {
        match self {
            Self::Dr => "real-server/dr.toml",
            Self::Tun => "real-server/tun.toml",
            Self::Nat => "real-server/nat.toml",
        }
    }

    /// The option of ipvsadm.
    fn option(self) -> &'static str {
        match self {
            Self::Dr => "-g",
            Self::Tun => "-i",
            Self::Nat => "-m",
        }
    }
}

/// Brings the form up, checks it, and takes it down again.
fn one_director(
    form: &mut Form<'_>,
    director: &mut LanDirector,
    webs: &mut [Web; 2],
    folder: &str,
    method: Method,
) -> Result<()> {
    for web in &*webs {
        if method == Method::Nat {
            web.host.set_gateway(director.host.address())?;
        }
        web.up(method.real_server())?;
    }
    balances(form, director, webs, folder)?;
    let table = ipvsadm(&director.host)?;
    let servers: Vec<_> = table.iter().filter(|it| it.starts_with("-a ")).collect();
    ensure!(
        servers.len() == 2 && servers.iter().all(|it| it.contains(method.option())),
        "not every real server has {}: {table:?}",
        method.option()
    );
    let service = format!("-A -t {VIP}:80 -s rr");
    ensure!(table.contains(&service), "{service}: {table:?}");
    director.stop()?;
    form.classic.wait_for_next_hops(VIP, &[], SOON)?;
    for web in &*webs {
        web.real_server("down", method.real_server())?;
        web.host.set_gateway(SWITCH)?;
    }
    Ok(())
}

/// Requests alternate, one real server is enough, and without any the VIP is withdrawn.
fn balances(
    form: &mut Form<'_>,
    director: &mut LanDirector,
    webs: &mut [Web; 2],
    folder: &str,
) -> Result<()> {
    director.start(&format!("{folder}/director.toml"))?;
    director.wait_for_weights(&[(lan(3), 1), (lan(4), 1)], SOON)?;
    form.classic
        .wait_for_next_hops(VIP, &[&director.host], SOON)?;
    form.step(format_args!("{folder}: announced"));
    let answers = form.classic.ask(VIP, 6)?;
    ensure!(
        answers.windows(2).all(|pair| pair[0] != pair[1]),
        "requests do not alternate: {answers:?}"
    );
    for web in &*webs {
        let clients = web.host.clients()?;
        ensure!(
            clients == [CLIENT.to_string()].into(),
            "{} was asked by {clients:?}, not by the client",
            web.host.name()
        );
    }

    webs[0].crash()?;
    director.wait_for_weights(&[(lan(3), 0), (lan(4), 1)], SOON)?;
    all_by(&form.classic.ask(VIP, 4)?, "web4")?;
    webs[1].crash()?;
    form.classic.wait_for_next_hops(VIP, &[], SOON)?;
    form.step(format_args!("{folder}: withdrawn"));
    webs[0].start(PLAIN_SITE)?;
    form.classic
        .wait_for_next_hops(VIP, &[&director.host], SOON)?;
    all_by(&form.classic.ask(VIP, 4)?, "web3")?;
    webs[1].start(PLAIN_SITE)?;
    director.wait_for_weights(&[(lan(3), 1), (lan(4), 1)], SOON)?;
    form.step(format_args!("{folder}: both are back"));
    Ok(())
}

fn all_by(answers: &[String], name: &str) -> Result<()> {
    ensure!(
        answers.iter().all(|it| it == name),
        "not all by {name}: {answers:?}"
    );
    Ok(())
}

/// The services of a host's kernel, as `ipvsadm -Sn` has them.
fn ipvsadm(host: &Host) -> Result<Vec<String>> {
    let output = host.namespace().run(Command::new("ipvsadm").arg("-Sn"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// Two nginx as proxies of two applications: any one of the four may stop.
fn proxies(form: &mut Form<'_>, director: &mut LanDirector, webs: &mut [Web; 2]) -> Result<()> {
    let classic = &form.classic;
    let hosts = [classic.host("app5", 5)?, classic.host("app6", 6)?];
    let start = |host: &Host| host.start_application("l7/application.py");
    let mut applications = vec![start(&hosts[0])?, start(&hosts[1])?];
    for web in &mut *webs {
        web.crash()?;
        web.start(L7_SITE)?;
        web.up("real-server/dr.toml")?;
    }
    director.start("l7/director.toml")?;
    director.wait_for_weights(&[(lan(3), 1), (lan(4), 1)], SOON)?;
    classic.wait_for_next_hops(VIP, &[&director.host], SOON)?;
    form.step("l7: announced");
    all_pairs(classic)?;

    for index in 0..2 {
        let other = format!("{} through", hosts[1 - index].name());
        applications.remove(index).crash()?;
        let answers = classic.ask(VIP, 4)?;
        ensure!(
            answers.iter().all(|it| it.starts_with(&other)),
            "without {}: {answers:?}",
            hosts[index].name()
        );
        applications.insert(index, start(&hosts[index])?);
        // Each nginx leaves it alone for a while yet.
        all_pairs(classic)?;
    }
    form.step("l7: each application was stopped");
    for index in 0..2 {
        let (dead, alive) = (webs[index].host.address(), webs[1 - index].host.address());
        webs[index].crash()?;
        director.wait_for_weights(&[(dead, 0), (alive, 1)], SOON)?;
        let through = format!("through {}", webs[1 - index].host.name());
        let answers = classic.ask(VIP, 4)?;
        ensure!(
            answers.iter().all(|it| it.contains(&through)),
            "without {dead}: {answers:?}"
        );
        webs[index].start(L7_SITE)?;
        director.wait_for_weights(&[(dead, 1), (alive, 1)], SOON)?;
    }
    form.step("l7: each nginx was stopped");
    Ok(())
}

/// Waits until both applications answer through both nginx.
fn all_pairs(classic: &Classic) -> Result<()> {
    let answer = |application, web| format!("{application} through {web} for {CLIENT}");
    let wanted = [
        answer("app5", "web3"),
        answer("app5", "web4"),
        answer("app6", "web3"),
        answer("app6", "web4"),
    ];
    wait::until("answers through all four pairs", SOON, || {
        let answers: BTreeSet<String> = classic.ask(VIP, 8)?.into_iter().collect();
        Ok(Probe::when(answers == wanted.clone().into(), (), || {
            format!("{answers:?}")
        }))
    })
}

/// The primary and the backup of one VIP, and then each of one VIP of two.
#[test]
fn two_directors_stand_in_for_each_other() -> Result<()> {
    form("forms-two", |form| {
        form.classic.switch.start()?;
        let webs = two_webs(form.classic)?;
        form.step("switch and nginx run");
        let mut directors = [
            LanDirector::new(form.classic.host("d1", 8)?),
            LanDirector::new(form.classic.host("d2", 9)?),
        ];
        primary_and_backup(form, &mut directors, &webs).context("primary-backup")?;
        for director in &mut directors {
            director.stop()?;
        }
        for web in &webs {
            web.real_server("down", "real-server/dr.toml")?;
        }
        dual_primary(form, &mut directors, &webs).context("dual-primary")
    })
}

fn start_both(directors: &mut [LanDirector; 2], folder: &str) -> Result<()> {
    for (director, name) in directors.iter_mut().zip(["d1", "d2"]) {
        director.start(&format!("{folder}/{name}.toml"))?;
    }
    Ok(())
}

/// The VIP is on the primary, moves to the backup with it gone, and comes back with it.
fn primary_and_backup(
    form: &mut Form<'_>,
    directors: &mut [LanDirector; 2],
    webs: &[Web; 2],
) -> Result<()> {
    for web in webs {
        web.up("real-server/dr.toml")?;
    }
    start_both(directors, "primary-backup")?;
    let [primary, backup] = directors;
    for director in [&*primary, &*backup] {
        director.wait_for_weights(&[(lan(3), 3), (lan(4), 2)], SOON)?;
        let table = ipvsadm(&director.host)?;
        let service = format!("-A -t {VIP}:80 -s wlc -p 50");
        ensure!(table.contains(&service), "{service}: {table:?}");
    }
    let classic = &form.classic;
    let announced = |host: &Host| classic.wait_for_next_hops(VIP, &[host], SOON);
    both_announce(primary, backup)?;
    announced(&primary.host)?;
    form.step("primary-backup: on the primary");
    one_server(classic)?;
    primary.power_off()?;
    announced(&backup.host)?;
    one_server(classic)?;
    form.step("primary-backup: on the backup");
    primary.power_on()?;
    primary.start("primary-backup/d1.toml")?;
    announced(&primary.host)?;
    one_server(classic)?;
    form.step("primary-backup: on the primary again");
    Ok(())
}

/// Waits until the switch could take either: a moment before, it might have only one to take.
fn both_announce(first: &LanDirector, second: &LanDirector) -> Result<()> {
    for director in [first, second] {
        let what = format!("the VIPs of {} to be announced", director.host.name());
        wait::until(what, SOON, || {
            let announced = director.status()?.speaker.map(|speaker| speaker.announced);
            let some = announced.as_ref().is_some_and(|it| !it.is_empty());
            Ok(Probe::when(some, (), || format!("{announced:?}")))
        })?;
    }
    Ok(())
}

/// A client stays with one real server for the time of persistence.
fn one_server(classic: &Classic) -> Result<()> {
    let answers = classic.ask(VIP, 4)?;
    all_by(&answers, &answers[0])
}

/// Each VIP on its own director; both on the one that is left; and back.
fn dual_primary(
    form: &mut Form<'_>,
    directors: &mut [LanDirector; 2],
    webs: &[Web; 2],
) -> Result<()> {
    for web in webs {
        web.up("dual-primary/real-server.toml")?;
    }
    start_both(directors, "dual-primary")?;
    let [first, second] = directors;
    let classic = &form.classic;
    // As a client that DNS gives both addresses in turn.
    let on = |of_vip: &Host, of_second: &Host| -> Result<()> {
        for (vip, host) in [(VIP, of_vip), (SECOND, of_second)] {
            classic.wait_for_next_hops(vip, &[host], SOON)?;
        }
        for vip in [VIP, SECOND, VIP, SECOND] {
            classic.ask(vip, 1)?;
        }
        Ok(())
    };
    on(&first.host, &second.host)?;
    form.step("dual-primary: each on its own");
    first.crash()?;
    on(&second.host, &second.host)?;
    form.step("dual-primary: both on the second");
    first.start("dual-primary/d1.toml")?;
    on(&first.host, &second.host)?;
    second.stop()?;
    on(&first.host, &first.host)?;
    form.step("dual-primary: both on the first");
    second.start("dual-primary/d2.toml")?;
    on(&first.host, &second.host)?;
    form.step("dual-primary: each on its own again");
    Ok(())
}

/// A real server is set up and given back, and what is wrong with one is found.
#[test]
fn a_real_server_is_set_up_and_given_back() -> Result<()> {
    form("forms-real", |form| {
        let classic = &form.classic;
        let mut web = Web {
            host: classic.host("web3", 3)?,
            nginx: None,
        };
        web.start(PLAIN_SITE)?;
        let neighbor = classic.host("neighbor", 50)?;
        for example in ["real-server/dr.toml", "real-server/tun.toml"] {
            let before = settings(&web.host)?;
            finds(&web, example, "vip-missing")?;
            web.up(example)?;
            ensure!(
                neighbor.arp(VIP)?.is_none(),
                "{example}: the real server answers ARP for the VIP"
            );
            web.real_server("down", example)?;
            let after = settings(&web.host)?;
            let differing: Vec<_> = before.symmetric_difference(&after).collect();
            ensure!(
                differing.is_empty(),
                "{example}: down has not given back what was there: {differing:?}"
            );
            form.step(format_args!("{example}: up and down"));
        }
        // The classic mistake: the address alone.
        let lo = |verb: &str| {
            web.host
                .namespace()
                .ip([format!("address {verb} {VIP}/32 dev lo")])
        };
        lo("add")?;
        finds(&web, "real-server/dr.toml", "vip-answers-arp")?;
        ensure!(
            neighbor.arp(VIP)?.is_some(),
            "status says that the host answers ARP, and it does not"
        );
        lo("delete")
    })
}

/// What `up` may change, a line each.
fn settings(host: &Host) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    let list = |arguments: &[&str]| -> Result<Vec<serde_json::Value>> {
        let listed = host.namespace().ip_json(arguments)?;
        Ok(listed.as_array().context("ip printed no list")?.clone())
    };
    for interface in list(&["address"])? {
        // Not its queueing discipline, which comes with the first time up and stays.
        for key in ["flags", "mtu", "addr_info"] {
            lines.insert(format!("{} {key} {}", interface["ifname"], interface[key]));
        }
    }
    for route in list(&["route"])? {
        lines.insert(route.to_string());
    }
    let mut sysctl = Command::new("sysctl");
    let all = host
        .namespace()
        .run(sysctl.args(["-a", "-r", "^net.ipv4.conf"]))?;
    let all = String::from_utf8_lossy(&all.stdout);
    lines.extend(all.lines().map(str::to_owned));
    Ok(lines)
}

/// `status` fails and names this finding.
fn finds(web: &Web, example: &str, code: &str) -> Result<()> {
    let output = web.host.real_server("status", example)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1) && said.contains(code),
        "status of {example} does not say {code}: {output:?}"
    );
    Ok(())
}
