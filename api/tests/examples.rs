//! The files under `deploy/examples/` are ones that the daemons and the controller accept, and
//! none of them is unwise.

use std::path::{Path, PathBuf};

use isopath_api::config::DirectorFile;
use isopath_api::declare::{Declaration, Warning};
use isopath_api::fault::{FileFaults, parse_toml};
use isopath_api::real_server::RealServerFile;

#[expect(
    clippy::disallowed_methods,
    reason = "the test reads the examples, the crate does not"
)]
fn toml_files(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("a folder is readable").path();
        if path.is_dir() {
            toml_files(&path, files);
        } else if path.extension().is_some_and(|it| it == "toml") {
            let text = std::fs::read_to_string(&path).expect("an example is readable");
            files.push((path, text));
        }
    }
}

/// What a file is, by the table that only its kind has.
fn warnings(name: &str, text: &str) -> Result<Vec<Warning>, FileFaults> {
    let has = |line: &str| text.lines().any(|it| it == line);
    if has("[director]") {
        return Ok(DirectorFile::parse(name, text)?.warnings());
    }
    if has("[real_server]") {
        return RealServerFile::parse(name, text).map(|_| Vec::new());
    }
    assert!(
        has("[[director]]"),
        "{name} is no kind of file that is known"
    );
    Ok(parse_toml(name, text, Declaration::validate)?.warnings())
}

#[test]
fn every_example_is_valid_and_wise() {
    let mut files = Vec::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    toml_files(&examples, &mut files);
    let folders = files.iter().filter_map(|(path, _)| path.parent());
    let folders = folders.collect::<std::collections::BTreeSet<_>>();
    assert_eq!(
        folders.len(),
        8,
        "not the folders there should be: {folders:?}"
    );
    for (path, text) in files {
        match warnings(&path.display().to_string(), &text) {
            Ok(warnings) => assert_eq!(warnings, [], "{}", path.display()),
            Err(faults) => panic!("{faults}"),
        }
    }
}
