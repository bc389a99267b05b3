//! `isopath agents` and `isopath enroll-token`.

use isopath_api::fleet::{AgentView, EnrollToken, EnrollTokenRequest, RevokeRequest};
use isopath_api::ids::DirectorName;
use reqwest::Method;

use super::{print, print_json};
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::{Column, Table};

/// The agents, of one cluster where one is named.
pub(super) fn list(args: &Args) -> Result<(), Failure> {
    let controller = Controller::new(&args.target)?;
    let path = match &args.target.cluster {
        Some(name) => format!("/agents?limit=200&cluster={name}"),
        None => "/agents?limit=200".to_owned(),
    };
    let agents: Vec<AgentView> = controller.all(&path)?;
    if args.json {
        return print_json("isopath.agents/1", "agents", &agents);
    }
    let mut table = Table::new(vec![
        Column::Left("CLUSTER"),
        Column::Left("DIRECTOR"),
        Column::Left("STATE"),
        Column::Left("VERSION"),
        Column::Left("LAST SEEN"),
        Column::Right("SKEW"),
        Column::Right("GENERATION"),
        Column::Right("REFUSED"),
        Column::Left("CERTIFICATE UNTIL"),
        Column::Left("ID"),
    ]);
    for agent in &agents {
        table.row(row(agent));
    }
    print(&table.render())
}

fn row(agent: &AgentView) -> [String; 10] {
    let nothing = || "-".to_owned();
    let time = |at: Option<jiff::Timestamp>| {
        at.map_or_else(nothing, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let generation = match (agent.acknowledged_generation, agent.generation) {
        (Some(acknowledged), Some(wanted)) => format!("{acknowledged}/{wanted}"),
        (None, Some(wanted)) => format!("-/{wanted}"),
        (_, None) => nothing(),
    };
    let skew = agent.clock_skew_ms;
    [
        agent.cluster.to_string(),
        agent.director.to_string(),
        agent.state.as_str().to_owned(),
        agent.version.clone().unwrap_or_else(nothing),
        time(agent.last_seen),
        skew.map_or_else(nothing, |skew| format!("{skew} ms")),
        generation,
        agent.refused.values().sum::<u64>().to_string(),
        time(agent.expires_at),
        agent.id.clone().unwrap_or_else(nothing),
    ]
}

pub(super) fn revoke(args: &Args, id: &str, reason: &str) -> Result<(), Failure> {
    if !id
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    {
        let words =
            format!("expected an agent's identity as `isopath agents` shows it, found {id:?}");
        return Err(Failure::Usage(words));
    }
    let controller = Controller::new(&args.target)?;
    let request = RevokeRequest {
        reason: reason.to_owned(),
    };
    let path = format!("/agents/{id}/revoke");
    let agent: AgentView = controller.send(Method::POST, &path, Some(&request))?;
    if args.json {
        return print_json("isopath.agent/1", "agent", &agent);
    }
    print(&format!(
        "agent {id} of director {} is revoked; the director goes on with what it has\n",
        agent.director
    ))
}

pub(super) fn create_token(args: &Args, director: &DirectorName) -> Result<(), Failure> {
    let controller = Controller::new(&args.target)?;
    let request = EnrollTokenRequest {
        cluster: controller.cluster(&args.target)?,
        director: director.clone(),
    };
    let made: EnrollToken = controller.send(Method::POST, "/enroll-tokens", Some(&request))?;
    if args.json {
        return print_json("isopath.enroll-token/1", "token", &made);
    }
    if let Some(pin) = &made.ca_pin {
        eprintln!("ca-pin: {pin}");
    }
    eprintln!("good until {}", made.expires_at);
    print(&format!("{}\n", made.token))
}
