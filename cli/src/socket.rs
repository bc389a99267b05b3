//! One question and its answer over a daemon's Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use isopath_api::speaker::MAX_LINE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// How long a daemon may take to answer; both answer from memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Sends one request as a JSON line and reads one JSON line back.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
) -> Result<A, Failure> {
    ask_within(path, request, PATIENCE)
}

/// The same with an answer that may take longer.
pub(crate) fn ask_within<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
    patience: Duration,
) -> Result<A, Failure> {
    let failed = |source| Failure::Socket {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).expect("requests are plain data");
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;

    let bound = u64::try_from(MAX_LINE).expect("a few MiB");
    let mut answer = Vec::new();
    BufReader::new(stream.take(bound))
        .read_until(b'\n', &mut answer)
        .map_err(failed)?;
    serde_json::from_slice(&answer).map_err(|error| Failure::Answer {
        peer: path.display().to_string(),
        what: error.to_string(),
    })
}
