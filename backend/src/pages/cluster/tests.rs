//! The page as it reads, from what the controller knows.

use isopath_api::ids::NeighborState;
use isopath_api::observed::Condition;
use isopath_api::view::{ClusterView, State};

use super::topology::Topology;
use super::*;
use crate::pages::fixture;

/// The page without its tags, each run of white space one space.
fn text(html: &str) -> String {
    let mut words = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                words.push(' ');
            }
            c if !inside => words.push(c),
            _ => {}
        }
    }
    let words = words.replace("&#39;", "'").replace("&#32;", " ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn page(view: &ClusterView) -> String {
    Page::new(view, fixture::session()).to_string()
}

/// The section of that id.
fn section(view: &ClusterView, id: &str) -> String {
    let start = format!("<section id=\"{id}\"");
    let mut fragments = Fragment::all(view, true).into_iter().map(|f| f.to_string());
    fragments.find(|html| html.starts_with(&start)).unwrap()
}

#[track_caller]
fn reads(html: &str, wanted: &str) {
    let text = text(html);
    assert!(text.contains(wanted), "{wanted:?} is not in: {text}");
}

#[test]
fn a_healthy_cluster_reads_from_verdict_to_history() {
    let view = fixture::healthy();
    let html = page(&view);
    let order = [
        "edge-fra",
        "10.99.0.1 is announced by all 4 directors.",
        "No problems",
        "Topology",
        "Directors 4 of 4 up",
        "VIPs",
        "Services and real servers",
        "Last events",
    ];
    let text = text(&html);
    let mut rest = text.as_str();
    for wanted in order {
        let found = rest.split_once(wanted);
        rest = found.unwrap_or_else(|| panic!("no {wanted:?} in {rest}")).1;
    }
    assert!(
        html.contains("<title>Up: edge-fra · Isopath</title>"),
        "{html}"
    );

    let verdict = section(&view, "verdict");
    reads(
        &verdict,
        "Directors up 4 of 4 VIPs at full width 1 of 1 Real servers up 3 of 3",
    );
    reads(
        &verdict,
        "Active connections 12,010 Connections/s 1,210 Revision 118",
    );
}

#[test]
fn a_director_s_row_has_its_neighbour_its_vip_and_its_button() {
    let html = section(&fixture::healthy(), "directors");
    reads(
        &html,
        "d1 10.0.1.2 Up Full sw1 eth1, 18m12s BFD Up 10.99.0.1 Announced cost 1 3,001 301 Drain d1 …",
    );
    assert!(
        html.contains(r#"href="/clusters/edge-fra/directors/d1/drain""#),
        "{html}"
    );
}

#[test]
fn what_withdraws_nothing_stands_beside_the_director_with_its_remedy() {
    let mut view = fixture::healthy();
    view.directors[0].conditions = vec![Condition {
        code: "tun-mtu".to_owned(),
        text: "a tunnel over eth1 (MTU 1500) carries packets of 1480 bytes".to_owned(),
        remedy: "clamp the MSS to 1440 on the real servers".to_owned(),
        since: view.as_of,
    }];
    let html = section(&view, "directors");
    reads(
        &html,
        "Up a tunnel over eth1 (MTU 1500) carries packets of 1480 bytes. \
         clamp the MSS to 1440 on the real servers.",
    );
}

#[test]
fn a_neighbour_without_bfd_and_one_that_is_not_full_are_told() {
    let mut view = fixture::healthy();
    let neighbor = &mut view.directors[0].neighbors[0];
    neighbor.bfd = None;
    neighbor.state = NeighborState::ExStart;
    let mut other = neighbor.clone();
    other.state = NeighborState::TwoWay;
    other.router_id = view.directors[1].router_id;
    view.directors[0].neighbors.push(other);
    let html = section(&view, "directors");
    reads(&html, "ExStart sw1 eth1, 18m12s BFD not used");
    reads(&html, "1 more in 2-Way");
}

#[test]
fn a_drained_director_says_why_and_offers_the_way_back() {
    let view = fixture::drained();
    let html = section(&view, "directors");
    reads(&html, "Draining draining: kernel update");
    reads(
        &html,
        "10.99.0.1 Withdrawn drained by an operator: kernel update",
    );
    let undrain = r#"form="act" formaction="/clusters/edge-fra/directors/d2/undrain""#;
    assert!(html.contains(undrain), "{html}");
    assert!(page(&view).contains(r#"<form id="act" method="post" hidden>"#));

    let operation = section(&view, "operations");
    reads(
        &operation,
        "Settling Drain d2 for 12s Guards allow it : done",
    );
    reads(
        &operation,
        "Withdrawn : done Other databases agree : under way Traffic has left : not yet",
    );
    reads(
        &operation,
        "Asked for by mia: kernel update. You may close this page",
    );
    reads(
        &section(&view, "vips"),
        "3 3 sw1: 3 of 3 through d1 d3 d4 d2 : drained by an operator: kernel update, for 12s",
    );
    assert!(section(&fixture::healthy(), "operations").contains(" hidden>"));
}

#[test]
fn a_vip_below_its_width_names_who_is_missing_and_why() {
    let view = fixture::narrow();
    let vips = section(&view, "vips");
    let why = "tcp:10.99.0.1:80: 0 of 3 real servers healthy, 1 needed, for 4m12s";
    reads(
        &vips,
        &format!("10.99.0.1 Degraded 4 3 sw1: 3 of 4 through d1 d2 d4 d3 : {why}"),
    );
    reads(&vips, "look at the real servers' last check results");
    let problems = section(&view, "problems");
    reads(
        &problems,
        "Problems 1 Degraded VIP 10.99.0.1 for 4m12s ECMP 3 of 4: d3 withdrew it",
    );
    assert!(
        problems.contains(r##"<a href="#vip-10.99.0.1">"##),
        "{problems}"
    );
    let services = section(&view, "services");
    reads(
        &services,
        "10.1.0.11:80 Degraded TCP refused on d3, for 4m12s 0-1 /1 4,011 120 401 Up Up Down Up",
    );
    reads(
        &services,
        "3 of 3 up (3 disputed between directors), 1 needed",
    );
}

#[test]
fn a_vip_that_a_stranger_announces_is_told() {
    let mut view = fixture::healthy();
    view.vips[0].foreign.push("10.9.9.9".parse().unwrap());
    let html = section(&view, "vips");
    reads(
        &html,
        "Also announced by 10.9.9.9, which is no director of this cluster.",
    );
}

#[test]
fn the_values_of_a_silent_agent_stay_with_their_time() {
    let view = fixture::silent();
    let html = section(&view, "directors");
    reads(
        &html,
        "Unknown no report for 12 s Values as of 03:12:29Z , 12s ago.",
    );
    reads(&html, "3,004 304");
    reads(
        &section(&view, "topology"),
        "sw1 d4 Unknown not heard of lately",
    );
    // The others' LSDB still has it announcing, whatever its agent does.
    reads(&section(&view, "topology"), "d4 10.99.0.1 Announced");
}

#[test]
fn what_never_reported_is_unknown_and_says_what_to_start() {
    let view = fixture::unheard();
    let html = section(&view, "directors");
    reads(&html, "No report yet. Start isopath-agent on it.");
    reads(
        &section(&view, "vips"),
        "d1 : has not reported start isopath-agent on it – –",
    );
    reads(
        &section(&view, "verdict"),
        "Active connections – Connections/s –",
    );
    reads(&section(&view, "topology"), "No switch seen");
    reads(&section(&view, "services"), "It has no real server.");
}

#[test]
fn an_empty_cluster_says_how_to_fill_it() {
    let html = page(&fixture::empty());
    for thing in ["director", "VIP", "service"] {
        reads(&html, &format!("This cluster declares no {thing}."));
    }
    reads(&html, "isopath apply FILE");
    reads(&html, "Nothing has happened yet.");
    assert!(section(&fixture::empty(), "topology").contains(" hidden>"));
}

#[test]
fn a_director_that_lags_behind_its_desired_state_says_so() {
    let mut view = fixture::healthy();
    view.directors[0].acknowledged_generation = Some(41);
    reads(
        &section(&view, "directors"),
        "runs generation 41, wanted 42",
    );
}

#[test]
fn who_would_send_clients_elsewhere_is_told_and_who_is_only_behind_is_not() {
    let view = fixture::unwise();
    let problems = section(&view, "problems");
    reads(
        &problems,
        "Problems 1 Degraded placement on director d3 for 4m12s",
    );
    assert!(
        problems.contains(r##"<a href="#director-d3">"##),
        "{problems}"
    );
    reads(
        &section(&view, "services"),
        "DR · same placement on d1 and d2, another on d3, a change on its way to d4",
    );
    let healthy = section(&fixture::healthy(), "services");
    reads(&healthy, "DR · same placement on d1, d2, d3 and d4");
    reads(&healthy, "Services and real servers stateless");
}

#[test]
fn what_is_unwise_is_a_list_of_names() {
    let warnings = section(&fixture::unwise(), "warnings");
    reads(
        &warnings,
        "Warnings 1 thresholds-with-mh /service/0/real_server tcp:10.99.0.1:80: a connection limit",
    );
    assert!(section(&fixture::healthy(), "warnings").contains(" hidden>"));
    let mut many = fixture::unwise();
    many.warnings = vec![many.warnings[0].clone(); 11];
    reads(&section(&many, "warnings"), "and 3 more:");
}

#[test]
fn a_backup_has_its_cost_and_no_part_in_the_width() {
    let mut view = fixture::unwise();
    view.vips[0].widths[0].width = 3;
    reads(
        &section(&view, "directors"),
        "10.99.0.1 Announced cost 100, backup",
    );
    reads(&section(&view, "vips"), "10.99.0.1 Up 4 4 sw1: 3 of 3");
}

#[test]
fn text_from_outside_never_becomes_markup() {
    let evil = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>";
    let mut view = fixture::narrow();
    view.operations = fixture::drained().operations;
    view.verdict = evil.to_owned();
    view.switches[0].name = Some(evil.to_owned());
    let problem = &mut view.problems[0];
    (problem.cause, problem.next) = (evil.to_owned(), evil.to_owned());
    problem.object = evil.to_owned();
    for director in &mut view.directors {
        director.why = evil.to_owned();
        director.vips[0].reason_text = evil.to_owned();
        director.neighbors[0].interface = evil.to_owned();
    }
    view.services[0].scheduler = evil.to_owned();
    for server in &mut view.services[0].real_servers {
        for check in server.seen.iter_mut().filter_map(|s| s.last_check.as_mut()) {
            check.detail = evil.to_owned();
        }
    }
    let operation = &mut view.operations[0];
    (operation.id, operation.kind) = (evil.to_owned(), evil.to_owned());
    (operation.detail, operation.reason) = (evil.to_owned(), evil.to_owned());
    operation.requested_by = evil.to_owned();
    operation.override_guards = vec![evil.to_owned()];
    let event = &mut view.events[0];
    (event.object, event.what, event.actor) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    let html = page(&view);
    assert!(!html.contains("<script>"), "{html}");
    assert!(!html.contains("<img"), "{html}");
    let escaped = html.matches("&#60;script&#62;alert(1)").count();
    assert!(escaped >= 15, "shown {escaped} times only: {html}");
}

#[test]
fn every_status_of_every_page_has_glyph_and_word() {
    let views = [
        fixture::healthy(),
        fixture::drained(),
        fixture::narrow(),
        fixture::silent(),
        fixture::unwise(),
        fixture::unheard(),
        fixture::empty(),
        fixture::sized(12, 12),
    ];
    for html in views.iter().map(page) {
        let statuses: Vec<_> = html.split(r#"<span class="status "#).skip(1).collect();
        assert!(!statuses.is_empty(), "no status at all: {html}");
        for status in statuses {
            let (kind, rest) = status.split_once('"').unwrap();
            let glyph = format!(r##"<use href="#glyph-{kind}"/></svg>"##);
            let word = rest.split_once(&glyph).map(|(_, word)| word);
            let word = word.and_then(|w| w.split_once('<')).map(|(word, _)| word);
            assert!(word.is_some_and(|w| !w.is_empty()), "{status:.200}");
        }
        for node in html.split(r#"<a class="node "#).skip(1) {
            let node = node.split_once("</a>").unwrap().0;
            assert!(node.contains("#glyph-"), "{node}");
            assert!(
                !node.contains(r#"class="word" x="34" y="71"></text>"#),
                "{node}"
            );
        }
    }
}

#[test]
fn a_directors_place_in_the_picture_survives_its_silence() {
    let places = |view: &ClusterView| {
        let html = Topology::new(view).to_string();
        let nodes = html.split(r#"<a class="node "#).skip(1);
        let of = |node: &str| {
            let key = node.split(r#"data-key=""#).nth(1).unwrap();
            let rect = node.split("<rect ").nth(1).unwrap();
            let (key, rect) = (key.split('"').next(), rect.split("width").next());
            (key.unwrap().to_owned(), rect.unwrap().to_owned())
        };
        nodes.map(of).collect::<Vec<_>>()
    };
    let healthy = places(&fixture::healthy());
    assert_eq!(healthy.len(), 1 + 4 + 1 + 3);
    assert_eq!(places(&fixture::silent()), healthy);
    assert_eq!(places(&fixture::drained()), healthy);
    let mut gone = fixture::healthy();
    gone.directors[2].neighbors.clear();
    assert_eq!(places(&gone), healthy, "a lost neighbour moves nothing");
}

#[test]
fn lines_are_whole_missing_or_leaving_as_the_lsdb_has_it() {
    let lines = |view: &ClusterView, class: &str| {
        let html = section(view, "topology");
        html.matches(&format!(r#"class="{class}" d="M"#)).count()
    };
    assert_eq!(lines(&fixture::healthy(), "whole"), 4 + 4 + 3);
    assert_eq!(lines(&fixture::narrow(), "missing"), 1, "d3 to the VIP");
    assert_eq!(lines(&fixture::narrow(), "partly"), 3, "disputed servers");
    assert_eq!(lines(&fixture::drained(), "leaving"), 1, "d2 to the VIP");
    assert_eq!(lines(&fixture::silent(), "unheard"), 1, "d4 to the switch");
    let mut view = fixture::healthy();
    view.directors[0].neighbors.clear();
    assert_eq!(lines(&view, "missing"), 1, "d1 to the switch");
    reads(&section(&view, "topology"), "sw1 d1 Down no adjacency");
}

#[test]
fn a_large_cluster_is_counted_and_what_is_wrong_in_it_is_named() {
    let mut view = fixture::sized(64, 200);
    view.directors[36].state = State::Down;
    let html = section(&view, "topology");
    reads(&html, "63 directors");
    reads(&html, "director d37, 10.0.1.38, Down");
    reads(&html, "200 of 200");
    let html = page(&view);
    let nodes = section(&view, "topology").matches('<').count();
    assert!(nodes < 1_500, "{nodes} tags in the picture");
    assert!(html.len() < 300_000, "{} bytes", html.len());
    reads(&section(&view, "services"), "64 Up");
}

#[test]
fn the_worst_problems_are_shown_and_the_rest_are_counted() {
    let mut view = fixture::narrow();
    let mut server = view.problems[0].clone();
    server.object = "real server 10.1.0.11:80 of tcp:10.99.0.1:80".to_owned();
    view.problems.extend(std::iter::repeat_n(server, 40));
    let html = section(&view, "problems");
    reads(&html, "Problems 41");
    reads(&html, "and 33 more");
    assert_eq!(html.matches("<li ").count(), 8, "{html}");
    let link = r##"href="#service-tcp-10.99.0.1-80-10.1.0.11:80""##;
    assert!(html.contains(link), "{html}");
    let row = r#"<tr id="service-tcp-10.99.0.1-80-10.1.0.11:80">"#;
    assert!(
        section(&view, "services").contains(row),
        "the link leads nowhere"
    );
}

#[test]
fn who_may_only_look_is_offered_no_drain() {
    let view = fixture::healthy();
    let offers = |may_operate| {
        let fragments = Fragment::all(&view, may_operate);
        let html: String = fragments.iter().map(ToString::to_string).collect();
        html.contains("/drain\"")
    };
    assert!(offers(true), "an operator is");
    assert!(!offers(false), "a viewer is not");
}
