//! Tokens of the API, by their hash.

use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{decode, to_ms};

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// The desired state and the reports of one cluster's directors.
    Agent {
        /// The cluster.
        cluster: ClusterName,
    },
}

impl Role {
    /// The word used in the database and on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent { .. } => "agent",
        }
    }

    fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Operator => None,
            Self::Agent { cluster } => Some(cluster),
        }
    }
}

/// A token as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name, which is its holder's in events.
    pub name: String,
    /// What it is good for.
    pub role: Role,
}

/// Stores a token; whether there was none of that name.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    hash: &str,
    token: &TokenRow,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO tokens (hash, name, role, cluster, made_ms) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(hash)
    .bind(&token.name)
    .bind(token.role.as_str())
    .bind(token.role.cluster().map(ClusterName::as_str))
    .bind(to_ms(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The token of a hash.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<TokenRow>, sqlx::Error> {
    let row: Option<(String, String, Option<String>)> =
        sqlx::query_as("SELECT name, role, cluster FROM tokens WHERE hash = $1")
            .bind(hash)
            .fetch_optional(connection)
            .await?;
    row.map(|(name, role, cluster)| {
        let role = match (role.as_str(), cluster) {
            ("operator", None) => Role::Operator,
            ("agent", Some(cluster)) => Role::Agent {
                cluster: cluster.parse().map_err(|e| decode("a cluster's name", e))?,
            },
            _ => return Err(sqlx::Error::Decode(format!("role {role:?}").into())),
        };
        Ok(TokenRow { name, role })
    })
    .transpose()
}
