//! The interfaces with OSPF on them, as each director's speaker reported them last.

use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::interface::{Authentication, Interface};
use sqlx::SqliteConnection;

use super::decode;

/// What is kept of an interface: what changes only when somebody changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRow {
    /// The kernel's name of it.
    pub name: String,
    /// The address that it speaks from; nothing while it is down.
    pub address: Option<std::net::Ipv4Addr>,
    /// Whether it has no subnet of its own.
    pub unnumbered: bool,
    /// How its packets are authenticated: `none`, `simple` or `cryptographic`.
    pub auth: String,
}

impl InterfaceRow {
    /// Whether it is what the speaker reports.
    pub fn is(&self, reported: &Interface) -> bool {
        self.name == reported.name
            && self.address == reported.address
            && self.unnumbered == reported.unnumbered
            && self.auth == auth(reported)
    }
}

impl From<&Interface> for InterfaceRow {
    fn from(interface: &Interface) -> Self {
        Self {
            name: interface.name.clone(),
            address: interface.address,
            unnumbered: interface.unnumbered,
            auth: auth(interface).to_owned(),
        }
    }
}

fn auth(interface: &Interface) -> &'static str {
    match interface.auth {
        Authentication::None => "none",
        Authentication::Simple => "simple",
        Authentication::Cryptographic { .. } => "cryptographic",
    }
}

/// Stores a director's interfaces in the place of those that it had.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    director: &DirectorName,
    interfaces: &[InterfaceRow],
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM interfaces WHERE cluster = $1 AND director = $2")
        .bind(cluster.as_str())
        .bind(director.as_str())
        .execute(&mut *connection)
        .await?;
    for (place, interface) in (0_i64..).zip(interfaces) {
        // A speaker cannot have two of a name; if one says so, the last is kept.
        sqlx::query(
            "INSERT INTO interfaces (cluster, director, name, place, address, unnumbered, auth) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (cluster, director, name) \
             DO UPDATE SET place = excluded.place, address = excluded.address, \
             unnumbered = excluded.unnumbered, auth = excluded.auth",
        )
        .bind(cluster.as_str())
        .bind(director.as_str())
        .bind(&interface.name)
        .bind(place)
        .bind(interface.address.map(|address| address.to_string()))
        .bind(interface.unnumbered)
        .bind(&interface.auth)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// A director's interfaces, in its file's order.
///
/// # Errors
/// When the database cannot be read.
pub async fn of_director(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    director: &DirectorName,
) -> Result<Vec<InterfaceRow>, sqlx::Error> {
    let rows: Vec<(String, Option<String>, bool, String)> = sqlx::query_as(
        "SELECT name, address, unnumbered, auth FROM interfaces \
         WHERE cluster = $1 AND director = $2 ORDER BY place",
    )
    .bind(cluster.as_str())
    .bind(director.as_str())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(name, address, unnumbered, auth)| {
            let address = address.map(|text| text.parse());
            Ok(InterfaceRow {
                name,
                address: address
                    .transpose()
                    .map_err(|error| decode("an interface's address", error))?,
                unnumbered,
                auth,
            })
        })
        .collect()
}
