//! Who this agent is to the controller: a key that never leaves the state directory, and the
//! certificate that the controller issued for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isopath_api::fleet::{CertificateRequest, Enrolled, PROTOCOL};
use isopath_api::ids::{ClusterName, DirectorName};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::store::{self, StoreError};

/// The machine's id, made at its installation (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";
/// This boot's id (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// None was ever enrolled.
    #[error("{} is not there: enrol this agent with `isopath-agent enroll`", .0.display())]
    NotEnrolled(PathBuf),
    /// The state directory.
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    /// The machine's id.
    #[error("cannot read {}", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key.
    #[error("cannot make a key and a request for its certificate")]
    Key(#[from] rcgen::Error),
    /// The certificate or the key.
    #[error("cannot read the certificate or the key in {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// It is another director's.
    #[error(
        "{} is that of director {director} in cluster {cluster}; enrol this agent for its own",
        path.display()
    )]
    Another {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        director: DirectorName,
        /// Its cluster.
        cluster: ClusterName,
    },
}

/// What is kept of an enrolment: one file, so that key and certificate always belong together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// What the controller issued.
    #[serde(flatten)]
    pub enrolled: Enrolled,
    /// The private key in PEM.
    key: String,
}

impl std::fmt::Debug for AgentIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentIdentity")
            .field("id", &self.enrolled.id)
            .finish_non_exhaustive()
    }
}

/// A fresh key and the request for its certificate.
pub struct Pending {
    key: KeyPair,
    /// What goes to the controller.
    pub request: CertificateRequest,
}

impl Pending {
    /// A fresh key of this machine's agent.
    ///
    /// # Errors
    /// The machine has no id, or no key can be made.
    pub fn new(state_dir: &Path) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let boot = std::fs::read_to_string(BOOT_ID).map_err(|source| IdentityError::Machine {
            path: BOOT_ID.into(),
            source,
        })?;
        let request = CertificateRequest {
            csr: csr.pem()?,
            machine: machine(state_dir)?,
            boot: boot.trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
        };
        Ok(Self { key, request })
    }

    /// The identity that the controller's answer makes of it.
    pub fn issued(self, enrolled: Enrolled) -> AgentIdentity {
        AgentIdentity {
            enrolled,
            key: self.key.serialize_pem(),
        }
    }
}

impl AgentIdentity {
    /// The file of it.
    pub fn file(state_dir: &Path) -> PathBuf {
        state_dir.join("identity.json")
    }

    /// The one that is kept for this director.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is another director's.
    pub fn load(
        state_dir: &Path,
        cluster: &ClusterName,
        director: &DirectorName,
    ) -> Result<Self, IdentityError> {
        let path = Self::file(state_dir);
        let kept: Option<Self> = store::read_json(&path)?;
        let kept = kept.ok_or_else(|| IdentityError::NotEnrolled(path.clone()))?;
        if (&kept.enrolled.cluster, &kept.enrolled.director) != (cluster, director) {
            return Err(IdentityError::Another {
                path,
                director: kept.enrolled.director,
                cluster: kept.enrolled.cluster,
            });
        }
        Ok(kept)
    }

    /// Keeps it in place of the one before.
    ///
    /// # Errors
    /// It cannot be written; the one before stands then.
    pub fn keep(&self, state_dir: &Path) -> Result<(), IdentityError> {
        store::make_directory(state_dir)?;
        Ok(store::write_private_json(&Self::file(state_dir), self)?)
    }

    /// The certificate and its key, for a TLS client.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn certified(
        &self,
        state_dir: &Path,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let wrong = |source| IdentityError::Pem {
            path: Self::file(state_dir),
            source,
        };
        let certificate = self.enrolled.certificate.as_bytes();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(wrong)?;
        Ok((chain.map_err(wrong)?, key))
    }

    /// When it is to be renewed: at two thirds of its time, and up to a twentieth of it later, so
    /// that agents that enrolled together do not renew together.
    pub fn renew_at(&self, random: f64) -> Timestamp {
        let (from, until) = (self.enrolled.issued_at, self.enrolled.expires_at);
        let validity = until.duration_since(from).unsigned_abs();
        let after = validity.mul_f64(2.0 / 3.0 + random / 20.0);
        from.checked_add(after).unwrap_or(until)
    }
}

/// The time before another try to renew after one that failed, which is soon enough many times
/// over in the last third of a certificate's time.
pub(crate) fn renewal_retry(attempt: u32, random: f64) -> Duration {
    let bound = Duration::from_secs(60)
        .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
        .min(Duration::from_secs(60 * 60));
    bound.mul_f64(random)
}

/// A hash of the machine's id, which itself is nobody else's to know (machine-id(5)); of this
/// state directory's instance where the machine has none, as in some containers.
///
/// # Errors
/// Neither can be read.
pub fn machine(state_dir: &Path) -> Result<String, IdentityError> {
    let id = match std::fs::read_to_string(MACHINE_ID) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) => store::instance(state_dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => store::instance(state_dir)?,
        Err(source) => {
            return Err(IdentityError::Machine {
                path: MACHINE_ID.into(),
                source,
            });
        }
    };
    let hash = Sha256::new()
        .chain_update(b"isopath-agent\n")
        .chain_update(id.trim().as_bytes())
        .finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity() -> AgentIdentity {
        let directory = tempfile::tempdir().unwrap();
        let pending = Pending::new(directory.path()).unwrap();
        assert!(pending.request.validate("").is_empty());
        pending.issued(Enrolled {
            id: "4f1c7d0e-0000-4000-8000-000000000000".to_owned(),
            cluster: "edge".parse().unwrap(),
            director: "d1".parse().unwrap(),
            certificate: String::new(),
            ca: None,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::from_second(30 * 86_400).unwrap(),
        })
    }

    #[test]
    fn what_is_kept_is_read_by_its_owner_only_and_for_its_director_only() {
        let directory = tempfile::tempdir().unwrap();
        let (edge, d1) = ("edge".parse().unwrap(), "d1".parse().unwrap());
        let none = AgentIdentity::load(directory.path(), &edge, &d1).unwrap_err();
        assert!(none.to_string().contains("isopath-agent enroll"), "{none}");
        let identity = identity();
        identity.keep(directory.path()).unwrap();
        let file = AgentIdentity::file(directory.path());
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = AgentIdentity::load(directory.path(), &edge, &d1).unwrap();
        assert_eq!(kept, identity);
        let d2 = "d2".parse().unwrap();
        let another = AgentIdentity::load(directory.path(), &edge, &d2).unwrap_err();
        assert!(another.to_string().contains("director d1"), "{another}");
        let shown = format!("{identity:?}");
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }

    #[test]
    fn it_is_renewed_at_two_thirds_of_its_time_and_a_little_later() {
        let day = |random| identity().renew_at(random).as_second() as f64 / 86_400.0;
        assert!((day(0.0) - 20.0).abs() < 0.01, "{}", day(0.0));
        assert!((day(1.0) - 21.5).abs() < 0.01, "{}", day(1.0));
        assert_eq!(renewal_retry(0, 1.0), Duration::from_secs(60));
        assert_eq!(renewal_retry(40, 1.0), Duration::from_secs(3600));
        assert_eq!(renewal_retry(40, 0.5), Duration::from_secs(1800));
    }
}
