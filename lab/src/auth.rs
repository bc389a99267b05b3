//! How the routers of a lab authenticate their packets to each other.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
pub use isopath_api::auth::Algorithm;

/// The authentication of the links between directors and switch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// A password in the clear.
    Simple(String),
    /// Digests by these keys. Both sides accept any of them; FRR and BIRD send with the last.
    Cryptographic(Vec<Key>),
}

/// A key of a lab, which is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its id.
    pub id: u8,
    /// What the routers share.
    pub secret: String,
}

impl Auth {
    /// One key of this algorithm.
    pub fn with(algorithm: Algorithm) -> Self {
        Self::Cryptographic(vec![Key {
            algorithm,
            id: 1,
            secret: "not-very-secret".to_owned(),
        }])
    }

    /// Its name in tables and the names of tests.
    pub fn name(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Simple(_) => "simple".to_owned(),
            Self::Cryptographic(keys) => {
                let names: Vec<&str> = keys.iter().map(|key| key.algorithm.as_str()).collect();
                names.join("+")
            }
        }
    }

    /// Writes the key files of a director and returns the `auth` of its interface, or nothing.
    pub(crate) fn write(&self, directory: &Path) -> Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Simple(password) => {
                let file = directory.join("simple.key");
                write_secret(&file, password)?;
                Ok(Some(format!(
                    "{{ algorithm = \"simple\", key_file = \"{}\" }}",
                    file.display()
                )))
            }
            Self::Cryptographic(keys) => {
                let mut tables = Vec::new();
                for Key {
                    algorithm,
                    id,
                    secret,
                } in keys
                {
                    let file = directory.join(format!("ospf-{id}.key"));
                    write_secret(&file, secret)?;
                    tables.push(format!(
                        "{{ algorithm = \"{algorithm}\", key_id = {id}, key_file = \"{}\" }}",
                        file.display()
                    ));
                }
                Ok(Some(format!("{{ keys = [{}] }}", tables.join(", "))))
            }
        }
    }
}

/// Writes a key file that nobody else can read.
///
/// # Errors
/// It cannot be written.
pub fn write_secret(file: &Path, secret: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if file.exists() {
            fs::remove_file(file)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        writeln!(file, "{secret}")
    };
    write().with_context(|| format!("writing {}", file.display()))
}
