//! `isopath paths`: how each router of the area reaches what is announced.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use isopath_api::ids::RouterId;
use isopath_api::paths::{HostPaths, Paths};
use isopath_api::{agent, speaker};

use super::{Daemon, ask_agent, ask_speaker, print, print_json, unexpected};
use crate::args::Args;
use crate::failure::Failure;
use crate::table::{Column, Table};

/// How long to wait for a result of the database as it is. A calculation takes milliseconds;
/// where the database never rests, the last result has to do.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// So many hosts of a group are named in a row.
const NAMED: usize = 3;

pub(super) fn run(args: &Args, host: Option<Ipv4Addr>) -> Result<(), Failure> {
    let daemon = Daemon::wanted(&args.target, "paths")?;
    let deadline = Instant::now() + PATIENCE;
    let mut paths = ask(&daemon, host)?;
    while !paths.current && Instant::now() < deadline {
        sleep(PAUSE);
        paths = ask(&daemon, host)?;
    }
    if args.json {
        return print_json("isopath.paths/1", "paths", &paths);
    }
    if let Some(problem) = &paths.problem {
        return Err(Failure::Refused(problem.clone()));
    }
    if let Some(host) = host
        && paths.groups.is_empty()
    {
        return Err(Failure::NotFound(format!("nobody announces {host}")));
    }
    print(&table(&paths))?;
    for note in notes(&paths) {
        eprintln!("{note}");
    }
    Ok(())
}

fn ask(daemon: &Daemon<'_>, host: Option<Ipv4Addr>) -> Result<Paths, Failure> {
    match daemon {
        Daemon::Agent(path) => match ask_agent(path, &agent::Request::Paths { host })? {
            agent::Reply::Paths(paths) => Ok(*paths),
            _ => Err(unexpected("the agent")),
        },
        Daemon::Speaker(path) => match ask_speaker(path, &speaker::Request::Paths { host })? {
            speaker::Reply::Paths(paths) => Ok(*paths),
            _ => Err(unexpected("the speaker")),
        },
    }
}

/// One row for each router and group of hosts that it reaches alike, the speaker's own VIPs
/// first. A switch without a path to a group has a row that says so.
fn table(paths: &Paths) -> String {
    let mut table = Table::new(vec![
        Column::Left("ROUTER"),
        Column::Left("HOSTS"),
        Column::Right("WIDTH"),
        Column::Left("COST"),
        Column::Left("THROUGH"),
    ]);
    for group in &paths.groups {
        for router in &paths.routers {
            let seen = group
                .seen
                .iter()
                .find(|seen| seen.router_id == router.router_id);
            let (width, cost, through) = match seen {
                Some(seen) => (seen.width, seen.cost.to_string(), list(&seen.through)),
                None if router.forwards => (0, "-".to_owned(), "no path".to_owned()),
                None => continue,
            };
            let through = if seen.is_some() && width == 0 {
                "itself".to_owned()
            } else {
                through
            };
            table.row([
                router.router_id.to_string(),
                hosts(group),
                width.to_string(),
                cost,
                through,
            ]);
        }
    }
    table.render()
}

/// What the table does not say.
fn notes(paths: &Paths) -> Vec<String> {
    let mut notes = Vec::new();
    if paths.routers.is_empty() {
        notes.push("the speaker has no adjacency: it sees nobody".to_owned());
    }
    if !paths.current {
        notes.push("the database has changed since".to_owned());
    }
    if paths.omitted_routers > 0 {
        notes.push(format!(
            "{} more routers are left out",
            paths.omitted_routers
        ));
    }
    if paths.omitted_hosts > 0 {
        notes.push(format!("{} more hosts are left out", paths.omitted_hosts));
    }
    notes
}

fn hosts(group: &HostPaths) -> String {
    let mut text = group
        .hosts
        .iter()
        .take(NAMED)
        .map(Ipv4Addr::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    if let Some(more) = group.hosts.len().checked_sub(NAMED)
        && more > 0
    {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn list(routers: &[RouterId]) -> String {
    let names: Vec<String> = routers.iter().map(RouterId::to_string).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopath_api::paths::{PathCost, Seen, Viewpoint};

    fn id(text: &str) -> RouterId {
        text.parse().unwrap()
    }

    fn paths() -> Paths {
        let viewpoint = |text, forwards| Viewpoint {
            router_id: id(text),
            forwards,
        };
        let seen = |text, width, through: &[&str]| Seen {
            router_id: id(text),
            cost: PathCost::IntraArea { cost: 11 },
            width,
            through: through.iter().map(|text| id(text)).collect(),
        };
        let host = |n| Ipv4Addr::new(10, 99, 0, n);
        Paths {
            current: false,
            problem: None,
            routers: vec![viewpoint("10.0.1.2", false), viewpoint("10.0.0.1", true)],
            groups: vec![
                HostPaths {
                    hosts: (1..=5).map(host).collect(),
                    announcers: vec![id("10.0.1.2"), id("10.0.2.2")],
                    seen: vec![
                        seen("10.0.1.2", 0, &["10.0.1.2"]),
                        seen("10.0.0.1", 2, &["10.0.1.2", "10.0.2.2"]),
                    ],
                },
                HostPaths {
                    hosts: vec![host(9)],
                    announcers: Vec::new(),
                    seen: Vec::new(),
                },
            ],
            omitted_routers: 0,
            omitted_hosts: 2,
        }
    }

    #[test]
    fn each_router_has_a_row_for_each_group_and_a_switch_without_a_path_too() {
        let text = table(&paths());
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        let many = "10.99.0.1 10.99.0.2 10.99.0.3 and 2 more";
        assert_eq!(
            rows,
            [
                vec!["10.0.1.2", many, "0", "11", "itself"],
                vec!["10.0.0.1", many, "2", "11", "10.0.1.2 10.0.2.2"],
                vec!["10.0.0.1", "10.99.0.9", "0", "-", "no path"],
            ],
            "{text}"
        );
    }

    #[test]
    fn what_is_old_or_left_out_is_said() {
        assert_eq!(
            notes(&paths()),
            [
                "the database has changed since",
                "2 more hosts are left out"
            ]
        );
    }
}
