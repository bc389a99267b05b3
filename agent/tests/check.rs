//! `isopath-agent check`, as a script sees it.

use std::process::{Command, Output};

const GOOD: &str = r#"
[director]
name = "d1"
router_id = "10.0.1.2"
[ospf]
[[ospf.interface]]
name = "eth1"
[[vip]]
address = "10.99.0.1/32"
"#;

fn check(name: &str, text: &str) -> (Output, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_isopath-agent"))
        .arg("check")
        .arg("--config")
        .arg(&path)
        .output()
        .expect("the agent's executable");
    (output, path.display().to_string())
}

#[test]
fn a_good_file_is_summed_up_on_the_standard_output() {
    let (output, _) = check("d1.toml", GOOD);
    assert_eq!(output.status.code(), Some(0));
    let line = String::from_utf8(output.stdout).unwrap();
    let expected = "director d1 (10.0.1.2), 1 interface, 1 VIP, 0 services, 0 real servers\n";
    assert_eq!(line, expected);
}

#[test]
fn a_fault_is_named_with_its_place_and_exit_code_2() {
    let bad = GOOD.replace("10.99.0.1/32", "10.99.0.0/24");
    let (output, path) = check("d1.toml", &bad);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with(&format!("{path}:9:11: expected ")),
        "{text}"
    );
    assert!(text.contains("10.99.0.0/24"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named_with_exit_code_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_isopath-agent"))
        .args(["check", "--config", "/nowhere/d1.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot read /nowhere/d1.toml"), "{text}");
}

fn plan(text: &str, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("d1.toml");
    let state = directory.path().join("state");
    let text = text.replace(
        "router_id",
        &format!("state_dir = {:?}\nrouter_id", state.display().to_string()),
    );
    std::fs::write(&path, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isopath-agent"));
    command.args(["check", "--plan"]).args(more);
    let command = command.arg("--config").arg(&path);
    command.output().expect("the agent's executable")
}

#[test]
fn a_plan_says_what_it_could_not_see_and_is_then_from_empty() {
    let output = plan(GOOD, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps: Vec<&str> = value["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step.as_str().unwrap())
        .collect();
    // Where this kernel has IPVS, the plan is for it; the interface is missing in both cases.
    let add = steps
        .iter()
        .position(|step| step.starts_with("add VIP 10.99.0.1 to interface"));
    assert!(add.is_some(), "{steps:?}");
    let text = String::from_utf8(plan(GOOD, &[]).stdout).unwrap();
    match value["unread"].as_str() {
        Some(why) => assert!(text.starts_with(&format!("cannot see what is there: {why}\n"))),
        None => assert!(text.starts_with("1. ")),
    }
    assert!(text.contains(". add VIP 10.99.0.1"), "{text}");
}

#[test]
fn a_director_without_a_data_plane_has_nothing_to_do() {
    let text = GOOD.replace("router_id", "dataplane = \"none\"\nrouter_id");
    let output = plan(&text, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "nothing to do\n");
}
