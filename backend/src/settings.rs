//! The file of `isopathd serve --config`.

use std::net::SocketAddr;

use isopath_api::fault::{FileFaults, parse_toml};
use serde::Deserialize;

/// Where the server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
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
}

impl Settings {
    /// Reads the text of the file called `file`.
    ///
    /// # Errors
    /// Every fault with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileFaults> {
        parse_toml(file, text, |_| Vec::new())
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
