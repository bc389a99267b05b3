//! A controller that is killed in each step of an operation: the next one finds the operation
//! where it was, tells every director what it was told before, and goes on.

use std::time::Duration;

use axum::http::StatusCode;
use isopath_api::desired::{AdminState, Desired};
use isopath_api::observed::{Health, Observed};
use isopath_api::operation::{OperationState, OperationView, StepState};
use isopath_api::reason::Reason;
use isopath_api::speaker::Source;
use serde_json::{Value, json};

use crate::testing::{Server, observed, read, router_id, set_health, withdrawn};

const ALL: [u8; 3] = [1, 2, 3];
const DRAINED: Reason = Reason::Drained {
    text: String::new(),
};

/// A cluster of three and an operation in it.
struct Rig {
    server: Server,
    location: String,
}

impl Rig {
    /// Everything as it should be; then this is asked for.
    async fn new(path: &str, body: Value) -> Self {
        let server = Server::start().await;
        server.declare(3).await;
        let mut rig = Self {
            server,
            location: String::new(),
        };
        rig.serve().await;
        rig.ask(path, body).await;
        rig
    }

    async fn ask(&mut self, path: &str, body: Value) {
        let path = format!("clusters/edge/{path}");
        let answer = self.server.call("POST", &path, &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.headers["location"]
            .to_str()
            .unwrap()
            .clone_into(&mut self.location);
    }

    async fn hear(&self, reports: impl IntoIterator<Item = Observed>) {
        for report in reports {
            let answer = self.server.follow(report).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        }
    }

    /// All three announce, and every database says so.
    async fn serve(&self) {
        self.hear(ALL.map(|n| read(observed(n, &ALL)))).await;
    }

    async fn operation(&self) -> OperationView {
        let answer = self.server.get(&self.location).await;
        serde_json::from_value(answer.json).unwrap()
    }

    async fn desired(&self) -> Vec<Desired> {
        let mut all = Vec::new();
        for n in ALL {
            let mut stream = self.server.stream(&format!("d{n}")).await;
            all.push(stream.next().await.unwrap().1);
        }
        all
    }

    /// Kills the controller while the operation is at `step`; the next one has it there.
    async fn killed_at(&mut self, step: &str) {
        let (before, told) = (self.operation().await, self.desired().await);
        assert_eq!(at(&before), Some(step), "{before:?}");
        self.server.stop();
        self.server = self.server.killed_and_started_again().await;
        let after = self.operation().await;
        let stored = |it: &OperationView| {
            let steps: Vec<_> = it.steps.iter().map(|it| (it.step, it.state)).collect();
            let need = it
                .targets
                .iter()
                .map(|it| (it.director.clone(), it.need_gen));
            let need: Vec<_> = need.collect();
            (
                it.id.clone(),
                steps,
                need,
                it.version,
                it.blocked_by.clone(),
            )
        };
        assert_eq!(stored(&after), stored(&before), "at {step}");
        assert_eq!(self.desired().await, told, "at {step}");
    }

    async fn ends(&self, state: OperationState, words: &str) {
        let ended = self.operation().await;
        assert_eq!(ended.state, state, "{ended:?}");
        assert!(ended.detail.contains(words), "{}", ended.detail);
    }

    /// Eleven seconds in which no packet comes to the VIPs of these directors.
    async fn keep_quiet(&self, reports: &[Observed]) {
        for _ in 0..11 {
            self.hear(reports.iter().cloned()).await;
            self.server.clock.advance(Duration::from_secs(1));
        }
        self.hear(reports.iter().cloned()).await;
    }
}

fn at(operation: &OperationView) -> Option<&'static str> {
    let mut steps = operation.steps.iter();
    let now = steps.find(|step| step.state == StepState::Now);
    now.map(|step| step.step.as_str())
}

/// The reports while d1 announces at the highest metric, out of every set.
fn raised() -> [Observed; 3] {
    ALL.map(|n| {
        let mut report = read(observed(n, &ALL));
        let speaker = report.speaker.as_mut().unwrap();
        speaker.widths[0].through = vec![router_id(2), router_id(3)];
        if n == 1 {
            speaker.announced[0].cost = 65535;
            speaker.announced[0].source = Source::Agent;
        }
        report
    })
}

#[tokio::test]
async fn a_directors_drain() {
    let mut rig = Rig::new("directors/d1/drain", json!({ "reason": "kernel" })).await;
    rig.killed_at("cost").await;

    // A guard is lost: it serves until that is over.
    rig.hear([2, 3].map(|n| withdrawn(n, &[1], Reason::Stopping)))
        .await;
    rig.hear([read(observed(1, &[1]))]).await;
    assert_eq!(rig.operation().await.blocked_by, ["last_announcer"]);
    rig.killed_at("guard").await;
    assert_eq!(rig.desired().await[0].admin_state, AdminState::Active);
    rig.serve().await;
    rig.serve().await;

    rig.hear(raised()).await;
    rig.hear(raised()).await;
    rig.killed_at("withdraw").await;
    assert_eq!(rig.desired().await[0].admin_state, AdminState::Drained);

    let gone = read(withdrawn(1, &[2, 3], DRAINED));
    let listing = [2, 3].map(|n| read(observed(n, &ALL)));
    rig.hear(listing.clone()).await;
    rig.hear([gone.clone()]).await;
    rig.killed_at("set").await;

    let quiet = [gone, read(observed(2, &[2, 3])), read(observed(3, &[2, 3]))];
    rig.hear(quiet.clone()).await;
    rig.server.clock.advance(Duration::from_secs(4));
    rig.hear(quiet.clone()).await;
    rig.killed_at("traffic").await;
    rig.hear(quiet.clone()).await;
    let detail = rig.operation().await.detail;
    assert!(detail.contains("stayed away for 0 of 10 s"), "{detail}");
    rig.keep_quiet(&quiet).await;
    rig.ends(OperationState::Succeeded, "safe to work on").await;
    for other in &rig.desired().await[1..] {
        let told = (other.generation, other.admin_state);
        assert_eq!(told, (1, AdminState::Active), "{}", other.director);
    }
    rig.ask("directors/d1/undrain", json!({})).await;
    rig.killed_at("restore").await;
    let back = read(observed(1, &ALL));
    rig.hear([
        read(observed(2, &[2, 3])),
        read(observed(3, &[2, 3])),
        back.clone(),
    ])
    .await;
    rig.killed_at("return").await;
    rig.hear([back]).await;
    assert_eq!(at(&rig.operation().await), Some("return"));
    rig.serve().await;
    rig.ends(OperationState::Succeeded, "in service").await;
}

#[tokio::test]
async fn a_vips_drain() {
    let mut rig = Rig::new("vips/10.99.0.1/drain", json!({})).await;
    rig.killed_at("withdraw").await;
    for desired in rig.desired().await {
        assert_eq!(desired.withdraw.len(), 1, "{}", desired.director);
        assert_eq!(desired.admin_state, AdminState::Active);
    }
    // They have withdrawn; the first two have not heard of the last one's yet.
    rig.hear([1, 2].map(|n| read(withdrawn(n, &[3], DRAINED))))
        .await;
    rig.hear([read(withdrawn(3, &[], DRAINED))]).await;
    rig.killed_at("set").await;
    let quiet = ALL.map(|n| read(withdrawn(n, &[], DRAINED)));
    rig.hear(quiet.clone()).await;
    rig.killed_at("traffic").await;
    rig.keep_quiet(&quiet).await;
    rig.ends(OperationState::Succeeded, "safe to work on").await;

    rig.ask("vips/10.99.0.1/undrain", json!({})).await;
    rig.killed_at("restore").await;
    // d1 announces, and nobody else has heard of it.
    rig.hear([2, 3].map(|n| read(withdrawn(n, &[], Reason::Stopping))))
        .await;
    rig.hear([read(observed(1, &[1]))]).await;
    rig.killed_at("return").await;
    rig.serve().await;
    rig.ends(OperationState::Succeeded, "in service").await;
}

/// The reports of directors that have the first real server at this weight.
fn with(weight: u16, active: u32) -> [Observed; 3] {
    ALL.map(|n| {
        let mut report = read(observed(n, &ALL));
        let server = &mut report.services[0].real_servers[0];
        server.weight = weight;
        server.effective_weight = Some(weight.into());
        (server.active, server.inactive) = (active, 0);
        report
    })
}

#[tokio::test]
async fn a_real_servers_drain() {
    let body = json!({ "deadline_s": 300, "on_deadline": "remove" });
    let mut rig = Rig::new("real-servers/10.1.0.11:80/drain", body).await;
    rig.killed_at("weight").await;

    let other_down = with(0, 5).map(|mut report| {
        set_health(&mut report, 1, Health::Down);
        report
    });
    rig.hear(other_down.clone()).await;
    rig.killed_at("guard").await;
    let weights = |desired: &Desired| -> Vec<u16> {
        let servers = &desired.service[0].real_server;
        servers.iter().map(|server| server.weight).collect()
    };
    assert_eq!(weights(&rig.desired().await[0]), [1, 1], "it is back");
    rig.serve().await;
    rig.serve().await;

    rig.hear(with(0, 5)).await;
    rig.killed_at("connections").await;
    assert_eq!(weights(&rig.desired().await[0]), [0, 1]);
    rig.hear(with(0, 5)).await;
    rig.server.clock.advance(Duration::from_secs(300));
    rig.hear(with(0, 5)).await;
    rig.hear(with(0, 5)).await;
    rig.killed_at("remove").await;
    assert_eq!(weights(&rig.desired().await[0]), [1], "it is taken out");
    let without = ALL.map(|n| {
        let mut report = read(observed(n, &ALL));
        report.services[0].real_servers.remove(0);
        report
    });
    rig.hear(without).await;
    rig.ends(OperationState::Succeeded, "connections was not over")
        .await;

    rig.ask("real-servers/10.1.0.11:80/undrain", json!({}))
        .await;
    rig.killed_at("restore").await;
    rig.serve().await;
    rig.ends(OperationState::Succeeded, "in service").await;
    assert_eq!(weights(&rig.desired().await[2]), [1, 1]);
}

#[tokio::test]
async fn what_is_cancelled() {
    let mut rig = Rig::new("directors/d1/drain", json!({ "immediate": true })).await;
    let cancel = format!("{}/cancel", rig.location.trim_start_matches("/api/v1/"));
    rig.server.call("POST", &cancel, &json!({})).await;
    rig.killed_at("restore").await;
    rig.serve().await;
    rig.ends(OperationState::Cancelled, "d1 is as it was").await;
}
