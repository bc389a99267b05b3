//! Tokens of the API, by their hash.

use std::collections::BTreeSet;

use isopath_api::access::Role;
use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::{decode, from_ms, to_ms};

/// The clusters that somebody may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clusters {
    /// Every one, also those to come.
    All,
    /// These, which may be declared later.
    Only(BTreeSet<ClusterName>),
}

impl Clusters {
    /// Whether this one is among them.
    pub fn contains(&self, cluster: &ClusterName) -> bool {
        match self {
            Self::All => true,
            Self::Only(clusters) => clusters.contains(cluster),
        }
    }
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// What somebody of this role may do.
    User {
        /// The role.
        role: Role,
        /// Where.
        clusters: Clusters,
    },
    /// The desired state and the reports of one cluster's directors.
    Agent {
        /// The cluster.
        cluster: ClusterName,
    },
}

impl Scope {
    /// All that a role may do, in every cluster.
    pub fn of(role: Role) -> Self {
        Self::User {
            role,
            clusters: Clusters::All,
        }
    }

    /// The word for its role in the database and on the command line.
    pub fn role(&self) -> &'static str {
        match self {
            Self::User { role, .. } => role.as_str(),
            Self::Agent { .. } => "agent",
        }
    }

    fn only(&self) -> Option<BTreeSet<ClusterName>> {
        match self {
            Self::User {
                clusters: Clusters::All,
                ..
            } => None,
            Self::User {
                clusters: Clusters::Only(clusters),
                ..
            } => Some(clusters.clone()),
            Self::Agent { cluster } => Some(BTreeSet::from([cluster.clone()])),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "role {}", self.role())?;
        match self.only() {
            Some(only) => {
                let names: Vec<_> = only.iter().map(ClusterName::as_str).collect();
                write!(f, " in {}", names.join(", "))
            }
            None => Ok(()),
        }
    }
}

/// A token as stored, but for its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name, which is its holder's in events.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub made: Timestamp,
    /// From when on it is not good any more.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was last used, to some minutes.
    pub used: Option<Timestamp>,
}

impl TokenRow {
    /// A token that is not used yet.
    pub fn new(name: &str, scope: Scope, made_by: &str, made: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            scope,
            made_by: made_by.to_owned(),
            made,
            expires: None,
            revoked: None,
            used: None,
        }
    }

    /// Why it is good for nothing, if it is not.
    pub fn refusal(&self, now: Timestamp) -> Option<String> {
        let name = &self.name;
        if self.revoked.is_some() {
            return Some(format!("the token {name} was revoked"));
        }
        let expired = self.expires.filter(|expires| *expires <= now)?;
        Some(format!("the token {name} expired at {expired:.0}"))
    }
}

/// Stores a token; whether there was none of that name. A revoked one makes place for it.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    hash: &str,
    token: &TokenRow,
) -> Result<bool, sqlx::Error> {
    sqlx::query("DELETE FROM tokens WHERE name = $1 AND revoked_ms IS NOT NULL")
        .bind(&token.name)
        .execute(&mut *connection)
        .await?;
    let only = token.scope.only();
    let done = sqlx::query(
        "INSERT INTO tokens (name, hash, role, restricted, made_by, made_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(&token.name)
    .bind(hash)
    .bind(token.scope.role())
    .bind(only.is_some())
    .bind(&token.made_by)
    .bind(to_ms(token.made))
    .bind(token.expires.map(to_ms))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    for cluster in only.into_iter().flatten() {
        sqlx::query("INSERT INTO token_clusters (token, cluster) VALUES ($1, $2)")
            .bind(&token.name)
            .bind(cluster.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(true)
}

/// The columns of [`row`].
const COLUMNS: &str = "name, role, restricted, made_by, made_ms, expires_ms, revoked_ms, used_ms";

/// The token of a hash, whether or not it is still good.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<TokenRow>, sqlx::Error> {
    one(connection, "hash", hash).await
}

/// The token of a name, whether or not it is still good.
///
/// # Errors
/// When the database cannot be read.
pub async fn by_name(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<TokenRow>, sqlx::Error> {
    one(connection, "name", name).await
}

async fn one(
    connection: &mut SqliteConnection,
    column: &'static str,
    value: &str,
) -> Result<Option<TokenRow>, sqlx::Error> {
    let query = format!("SELECT {COLUMNS} FROM tokens WHERE {column} = $1");
    let found = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(value)
        .fetch_optional(&mut *connection)
        .await?;
    match found {
        Some(found) => Ok(Some(row(connection, &found).await?)),
        None => Ok(None),
    }
}

/// The tokens after the name `after`, by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(
    connection: &mut SqliteConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<TokenRow>, sqlx::Error> {
    let query = format!("SELECT {COLUMNS} FROM tokens WHERE name > $1 ORDER BY name LIMIT $2");
    let found = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    let mut tokens = Vec::with_capacity(found.len());
    for found in &found {
        tokens.push(row(connection, found).await?);
    }
    Ok(tokens)
}

async fn row(
    connection: &mut SqliteConnection,
    found: &sqlx::sqlite::SqliteRow,
) -> Result<TokenRow, sqlx::Error> {
    let name: String = found.try_get("name")?;
    let role: String = found.try_get("role")?;
    let restricted: bool = found.try_get("restricted")?;
    let moment = |column: &str| -> Result<Option<Timestamp>, sqlx::Error> {
        let ms: Option<i64> = found.try_get(column)?;
        ms.map(from_ms).transpose()
    };
    let clusters = if restricted {
        Clusters::Only(clusters(connection, &name).await?)
    } else {
        Clusters::All
    };
    Ok(TokenRow {
        scope: scope(&role, clusters)?,
        made_by: found.try_get("made_by")?,
        made: from_ms(found.try_get("made_ms")?)?,
        expires: moment("expires_ms")?,
        revoked: moment("revoked_ms")?,
        used: moment("used_ms")?,
        name,
    })
}

async fn clusters(
    connection: &mut SqliteConnection,
    token: &str,
) -> Result<BTreeSet<ClusterName>, sqlx::Error> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT cluster FROM token_clusters WHERE token = $1")
            .bind(token)
            .fetch_all(connection)
            .await?;
    let parse = |name: String| name.parse().map_err(|e| decode("a cluster's name", e));
    names.into_iter().map(parse).collect()
}

fn scope(role: &str, clusters: Clusters) -> Result<Scope, sqlx::Error> {
    if role != "agent" {
        let role = role.parse().map_err(|e| decode("a role", e))?;
        return Ok(Scope::User { role, clusters });
    }
    let cluster = match clusters {
        Clusters::All => None,
        Clusters::Only(clusters) => clusters.into_iter().next(),
    };
    cluster
        .map(|cluster| Scope::Agent { cluster })
        .ok_or_else(|| sqlx::Error::Decode("an agent's token without a cluster".into()))
}

/// Changes whenever a token is made or revoked, so that those that were read before need not be
/// read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    tokens: i64,
    revoked: i64,
    made_ms: Option<i64>,
    revoked_ms: Option<i64>,
}

/// The present one.
///
/// # Errors
/// When the database cannot be read.
pub async fn fingerprint(connection: &mut SqliteConnection) -> Result<Fingerprint, sqlx::Error> {
    let (tokens, revoked, made_ms, revoked_ms) = sqlx::query_as(
        "SELECT COUNT(*), COUNT(revoked_ms), MAX(made_ms), MAX(revoked_ms) FROM tokens",
    )
    .fetch_one(connection)
    .await?;
    Ok(Fingerprint {
        tokens,
        revoked,
        made_ms,
        revoked_ms,
    })
}

/// Makes a token good for nothing from now on; whether it was good until now.
///
/// # Errors
/// When the database cannot be written to.
pub async fn revoke(
    connection: &mut SqliteConnection,
    name: &str,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("UPDATE tokens SET revoked_ms = $2 WHERE name = $1 AND revoked_ms IS NULL")
            .bind(name)
            .bind(to_ms(now))
            .execute(connection)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes when a token was last used.
///
/// # Errors
/// When the database cannot be written to.
pub async fn touch(
    connection: &mut SqliteConnection,
    name: &str,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE tokens SET used_ms = $2 WHERE name = $1")
        .bind(name)
        .bind(to_ms(at))
        .execute(connection)
        .await?;
    Ok(())
}
