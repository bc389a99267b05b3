//! The keys of packet authentication: read from their files, with lifetimes by the wall clock.
//!
//! The core counts time by a clock that nobody sets; so when the wall clock is set, every
//! lifetime is worked out anew (`Keys::authentication`). Secrets stay in here and in the core.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use isopath_api::auth::{Algorithm, AuthConfig, KeyConfig};
use isopath_api::config::InterfaceConfig;
use isopath_api::fault::Fault;
use isopath_ospf::{Authentication, Key, Lifetime, MAX_MD5_SECRET, MAX_PASSWORD, Secret};

/// The longest secret for HMAC. HMAC takes any length; no peer's configuration does.
const MAX_HMAC_SECRET: usize = 255;

/// In place of a time too far away to be expressed.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The keys of all interfaces, in the file's order.
#[derive(Debug, Default)]
pub struct Keys {
    interfaces: Vec<Loaded>,
}

/// The secrets of one interface.
#[derive(Debug)]
enum Loaded {
    None,
    Simple(Secret),
    Cryptographic(Vec<(KeyConfig, Secret)>),
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self {
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Seconds since 1970, where cryptographic sequence numbers begin.
    pub(crate) fn unix_seconds(self) -> u32 {
        let since = self.wall.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
        })
    }

    /// The moment that the wall clock, as it goes now, calls by this time.
    fn instant(self, at: impl Into<SystemTime>) -> Instant {
        let at = at.into();
        match at.duration_since(self.wall) {
            Ok(ahead) => self.now + ahead.min(FAR),
            Err(error) => {
                let ago = error.duration().min(FAR);
                self.now.checked_sub(ago).unwrap_or(self.now)
            }
        }
    }
}

impl Keys {
    /// Reads all key files.
    ///
    /// # Errors
    /// Every file that is missing, open to others, or holds no possible secret, with the
    /// pointer of the key in the director's file.
    pub fn load(interfaces: &[InterfaceConfig]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut loaded = Vec::new();
        for (index, interface) in interfaces.iter().enumerate() {
            let at = format!("/ospf/interface/{index}/auth");
            loaded.push(match &interface.auth {
                None => Loaded::None,
                Some(auth) => load(auth, &at, &mut faults),
            });
        }
        if faults.is_empty() {
            Ok(Self { interfaces: loaded })
        } else {
            Err(faults)
        }
    }

    /// The authentication of the interface at this place of the file.
    pub(crate) fn authentication(&self, place: usize, clocks: Clocks) -> Authentication {
        match self.interfaces.get(place) {
            None | Some(Loaded::None) => Authentication::Null,
            Some(Loaded::Simple(password)) => Authentication::Simple(password.clone()),
            Some(Loaded::Cryptographic(keys)) => {
                let key = |(config, secret): &(KeyConfig, Secret)| key(config, secret, clocks);
                Authentication::Cryptographic(keys.iter().map(key).collect())
            }
        }
    }
}

fn load(auth: &AuthConfig, at: &str, faults: &mut Vec<Fault>) -> Loaded {
    let mut read = |path: &Path, at: String, most: usize| match secret(path, most) {
        Ok(secret) => Some(Secret::new(secret)),
        Err(KeyFileError { expected, found }) => {
            let found = format_args!("{}: {found}", path.display());
            faults.push(Fault::new(at, expected, found));
            None
        }
    };
    match auth {
        AuthConfig::Simple { key_file } => {
            read(key_file, format!("{at}/key_file"), MAX_PASSWORD).map(Loaded::Simple)
        }
        AuthConfig::Cryptographic { keys } => {
            let mut loaded = Vec::new();
            for (index, key) in keys.iter().enumerate() {
                let at = format!("{at}/keys/{index}/key_file");
                let secret = read(&key.key_file, at, longest(key.algorithm));
                loaded.extend(secret.map(|secret| (key.clone(), secret)));
            }
            Some(Loaded::Cryptographic(loaded))
        }
    }
    .unwrap_or(Loaded::None)
}

fn longest(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Md5 => MAX_MD5_SECRET,
        Algorithm::HmacSha1
        | Algorithm::HmacSha256
        | Algorithm::HmacSha384
        | Algorithm::HmacSha512 => MAX_HMAC_SECRET,
    }
}

fn key(config: &KeyConfig, secret: &Secret, clocks: Clocks) -> Key {
    let lifetime = |from: Option<_>, until: Option<_>| Lifetime {
        from: from.map(|at| clocks.instant(at)),
        until: until.map(|at| clocks.instant(at)),
    };
    Key {
        id: config.key_id,
        algorithm: match config.algorithm {
            Algorithm::Md5 => isopath_ospf::Algorithm::Md5,
            Algorithm::HmacSha1 => isopath_ospf::Algorithm::HmacSha1,
            Algorithm::HmacSha256 => isopath_ospf::Algorithm::HmacSha256,
            Algorithm::HmacSha384 => isopath_ospf::Algorithm::HmacSha384,
            Algorithm::HmacSha512 => isopath_ospf::Algorithm::HmacSha512,
        },
        secret: secret.clone(),
        send: lifetime(config.send_from, config.send_until),
        accept: lifetime(config.accept_from, config.accept_until),
    }
}

/// Why a key file is of no use. It never says what stands in it.
#[derive(Debug, PartialEq, Eq)]
struct KeyFileError {
    expected: String,
    found: String,
}

/// The one line of a key file, its end taken off. As ssh does with its keys, a file that
/// everybody can read is refused: what it holds is no secret any more.
fn secret(path: &Path, most: usize) -> Result<Vec<u8>, KeyFileError> {
    let unreadable = |error: io::Error| KeyFileError {
        expected: "a key file that can be read".to_owned(),
        found: error.to_string(),
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(KeyFileError {
            expected: "a key file".to_owned(),
            found: "something else than a file".to_owned(),
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(KeyFileError {
            expected: "a key file that others cannot read and only its owner can write (mode \
                       0600 or 0640)"
                .to_owned(),
            found: format!("mode {mode:04o}"),
        });
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    // One byte more than any secret and its end of line: that there is one is what counts.
    let limit = u64::try_from(most + 3).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let expected = || format!("a key of 1 to {most} bytes on one line");
    let refused = |found: &str| KeyFileError {
        expected: expected(),
        found: found.to_owned(),
    };
    if bytes.is_empty() {
        return Err(refused("nothing in it"));
    }
    if bytes.contains(&b'\n') || bytes.contains(&0) {
        return Err(refused("several lines, or a NUL"));
    }
    if bytes.len() > most {
        return Err(refused("a longer one"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
