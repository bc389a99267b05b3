//! Where the built programs are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The path of the program `name`: in `ISOPATH_BIN_DIR`, else beside this program. A test
/// program lies in `deps/`, one below the programs it tests.
///
/// # Errors
/// It is in none of these places.
pub fn find(name: &str) -> Result<PathBuf> {
    let mut places = Vec::new();
    if let Some(place) = std::env::var_os("ISOPATH_BIN_DIR") {
        let place = PathBuf::from(place);
        places.push(std::path::absolute(&place).with_context(|| place.display().to_string())?);
    } else {
        let own = std::env::current_exe().context("finding the path of this program")?;
        places.extend(own.ancestors().skip(1).take(2).map(PathBuf::from));
    }
    for place in &places {
        let path = place.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no program {name} in {}; build the workspace, or set ISOPATH_BIN_DIR to where it is",
        places
            .iter()
            .map(|place| place.display().to_string())
            .collect::<Vec<_>>()
            .join(" or ")
    )
}
