//! `isopath events`.

use std::time::Duration;

use isopath_api::view::EventView;

use super::print;
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::printable;

/// How often new events are asked for with `--follow`.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Args, follow: bool, limit: u16) -> Result<(), Failure> {
    let controller = Controller::new(&args.target)?;
    let filter = match &args.target.cluster {
        Some(name) => format!("&cluster={name}"),
        None => String::new(),
    };
    let mut last = 0;
    let mut wanted = limit;
    loop {
        // Newest first, as the API answers; of those only the ones not shown yet.
        let events: Vec<EventView> = controller.get(&format!("/events?limit={wanted}{filter}"))?;
        for event in events.iter().rev().filter(|event| event.id > last) {
            show(args, event)?;
        }
        last = events.first().map_or(last, |event| event.id.max(last));
        if !follow {
            return Ok(());
        }
        wanted = 200;
        std::thread::sleep(PERIOD);
    }
}

fn show(args: &Args, event: &EventView) -> Result<(), Failure> {
    if args.json {
        let line = serde_json::to_string(event).expect("events are plain data");
        return print(&format!("{line}\n"));
    }
    print(&format!(
        "{}  {:<7}  {}  {}  by {}\n",
        event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        event.severity.as_str(),
        printable(&event.object),
        printable(&event.what),
        printable(&event.actor),
    ))
}
