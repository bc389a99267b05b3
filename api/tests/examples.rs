//! The files under `deploy/examples/` are ones that the daemons and the controller accept.

use std::path::{Path, PathBuf};

use isopath_api::config::DirectorFile;
use isopath_api::declare::Declaration;
use isopath_api::fault::parse_toml;

fn toml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("a folder is readable").path();
        if path.is_dir() {
            toml_files(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test reads the examples, the crate does not"
)]
fn every_example_is_valid() {
    let mut files = Vec::new();
    toml_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples"),
        &mut files,
    );
    assert!(files.len() >= 3, "the examples were not found: {files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let faults = if text.contains("[director]\n") {
            DirectorFile::parse(&name, &text).err()
        } else {
            parse_toml(&name, &text, Declaration::validate).err()
        };
        assert!(faults.is_none(), "{}", faults.unwrap());
    }
}
