//! The file of `isopathd serve --config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use isopath_api::fault::{FileFaults, parse_toml};
use serde::Deserialize;

use crate::auth::LimitSettings;
use crate::retention::RetentionSettings;
use crate::tls::TlsSettings;

/// The database unless told otherwise.
pub const DEFAULT_DATABASE: &str = "sqlite://isopath.db";

/// What the file may say; the command line goes before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address and port to listen on.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The database's URL.
    #[serde(default)]
    pub database: Option<String>,
    /// Whether passwords and tokens may go over a network in the clear: without TLS the server
    /// listens on loopback addresses only, where a proxy that ends TLS reaches it.
    #[serde(default)]
    pub insecure_http: bool,
    /// Where the first start writes the password of the user it makes, in place of its output.
    #[serde(default)]
    pub admin_password_file: Option<PathBuf>,
    /// How often anybody may ask.
    #[serde(default)]
    pub limits: LimitSettings,
    /// TLS; without it, plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// How long things are kept.
    #[serde(default)]
    pub retention: RetentionSettings,
}

impl Settings {
    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        let default = SocketAddr::from(([127, 0, 0, 1], 8080));
        self.listen.unwrap_or(default)
    }

    /// The database's URL.
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(DEFAULT_DATABASE)
    }

    /// Reads the text of the file called `file`.
    ///
    /// # Errors
    /// Every fault with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileFaults> {
        parse_toml(file, text, |settings: &Self| {
            let tls = settings.tls.iter();
            let faults = tls.flat_map(TlsSettings::faults);
            let faults = faults.chain(settings.limits.faults());
            faults.chain(settings.retention.faults()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_are_read_and_may_be_left_out() {
        assert_eq!(Settings::parse("c.toml", "").unwrap(), Settings::default());
        let text = "listen = \"[::1]:81\"\ndatabase = \"sqlite:///var/lib/isopath/isopath.db\"\n";
        let settings = Settings::parse("c.toml", text).unwrap();
        assert_eq!(settings.listen, Some("[::1]:81".parse().unwrap()));
        assert!(settings.database.unwrap().ends_with("isopath.db"));
    }

    #[test]
    fn tls_wants_one_certificate_and_names_that_are_names() {
        for (tls, words) in [
            ("", "`certificate` and `key`, or own_ca = true"),
            ("certificate = \"/c\"", "`key` beside `certificate`"),
            ("key = \"/k\"", "`certificate` beside `key`"),
            (
                "certificate = \"/c\"\nkey = \"/k\"\nown_ca = true",
                "no own_ca beside",
            ),
            ("own_ca = true\nnames = [\"a b\"]", "found \"a b\""),
            ("own_ca = true\nport = 1", "unknown field `port`"),
        ] {
            let faults = Settings::parse("c.toml", &format!("[tls]\n{tls}\n"));
            let faults = faults.unwrap_err().to_string();
            assert!(faults.contains(words), "{tls}: {faults}");
        }
        let good = "[tls]\nown_ca = true\nnames = [\"isopath.example\", \"192.0.2.1\"]\n";
        assert!(Settings::parse("c.toml", good).is_ok());
    }

    #[test]
    fn a_fault_has_its_place() {
        let unknown = Settings::parse("c.toml", "\nport = 80\n")
            .unwrap_err()
            .to_string();
        assert!(unknown.starts_with("c.toml:2:1: "), "{unknown}");
        assert!(unknown.contains("port"), "{unknown}");
        let wrong = Settings::parse("c.toml", "listen = \"here\"\n")
            .unwrap_err()
            .to_string();
        assert!(wrong.starts_with("c.toml:1:10: "), "{wrong}");
    }
}
