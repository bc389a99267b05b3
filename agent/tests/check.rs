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
