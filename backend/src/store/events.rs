//! Events: what happened, for as long as [`super::retention`] keeps them.

use isopath_api::ids::ClusterName;
use isopath_api::view::{EventView, Severity};
use jiff::Timestamp;
use sqlx::{QueryBuilder, SqliteConnection};

use super::{decode, from_int, from_ms, to_int, to_ms};

/// An event before it has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// The cluster, where it concerns one.
    pub cluster: Option<ClusterName>,
    /// How bad.
    pub severity: Severity,
    /// The object, such as `director d3`.
    pub object: String,
    /// What happened.
    pub what: String,
    /// Who or what did it.
    pub actor: String,
}

/// Stores an event: the event with its number.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    event: NewEvent,
) -> Result<EventView, sqlx::Error> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO events (at_ms, cluster, severity, object, what, actor) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(to_ms(event.at))
    .bind(event.cluster.as_ref().map(ClusterName::as_str))
    .bind(event.severity.as_str())
    .bind(&event.object)
    .bind(&event.what)
    .bind(&event.actor)
    .fetch_one(connection)
    .await?;
    Ok(EventView {
        id: from_int(id)?,
        at: event.at,
        cluster: event.cluster,
        severity: event.severity,
        object: event.object,
        what: event.what,
        actor: event.actor,
    })
}

type Columns = (i64, i64, Option<String>, String, String, String, String);

/// The last `limit` events before the one numbered `before`, newest first; of one cluster
/// where one is given.
///
/// # Errors
/// When the database cannot be read.
pub async fn last(
    connection: &mut SqliteConnection,
    cluster: Option<&ClusterName>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<EventView>, sqlx::Error> {
    let query = match cluster {
        Some(_) => sqlx::query_as(
            "SELECT id, at_ms, cluster, severity, object, what, actor FROM events \
             WHERE id < $1 AND cluster = $3 ORDER BY id DESC LIMIT $2",
        ),
        None => sqlx::query_as(
            "SELECT id, at_ms, cluster, severity, object, what, actor FROM events \
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
        ),
    };
    let mut query = query.bind(before.map_or(i64::MAX, to_int)).bind(limit);
    if let Some(cluster) = cluster {
        query = query.bind(cluster.as_str());
    }
    let rows: Vec<Columns> = query.fetch_all(connection).await?;
    rows.into_iter().map(from_columns).collect()
}

/// Which events are looked for; each part that is there narrows it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of one of these clusters.
    pub clusters: Option<Vec<ClusterName>>,
    /// As bad as this.
    pub severity: Option<Severity>,
    /// Of this object.
    pub object: Option<String>,
    /// Done by this.
    pub actor: Option<String>,
    /// With this in the object or in what happened.
    pub text: Option<String>,
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
}

/// The last `limit` events before the one numbered `before` that pass a filter, newest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<EventView>, sqlx::Error> {
    let mut query = QueryBuilder::new(
        "SELECT id, at_ms, cluster, severity, object, what, actor FROM events WHERE id < ",
    );
    query.push_bind(before.map_or(i64::MAX, to_int));
    if let Some(clusters) = &filter.clusters {
        query.push(" AND cluster IN (");
        let mut names = query.separated(", ");
        for cluster in clusters {
            names.push_bind(cluster.as_str().to_owned());
        }
        query.push(")");
    }
    if let Some(severity) = filter.severity {
        query.push(" AND severity = ").push_bind(severity.as_str());
    }
    if let Some(object) = &filter.object {
        query.push(" AND object = ").push_bind(object.clone());
    }
    if let Some(actor) = &filter.actor {
        query.push(" AND actor = ").push_bind(actor.clone());
    }
    if let Some(text) = &filter.text {
        let pattern = contains(text);
        query.push(" AND (object LIKE ").push_bind(pattern.clone());
        query.push(" ESCAPE '!' OR what LIKE ").push_bind(pattern);
        query.push(" ESCAPE '!')");
    }
    if let Some(from) = filter.from {
        query.push(" AND at_ms >= ").push_bind(to_ms(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND at_ms < ").push_bind(to_ms(to));
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Columns> = query.build_query_as().fetch_all(connection).await?;
    rows.into_iter().map(from_columns).collect()
}

/// The pattern of LIKE for what contains a text.
fn contains(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn from_columns(columns: Columns) -> Result<EventView, sqlx::Error> {
    let (id, at, cluster, severity, object, what, actor) = columns;
    let cluster = cluster.map(|name| name.parse().map_err(|e| decode("a cluster's name", e)));
    Ok(EventView {
        id: from_int(id)?,
        at: from_ms(at)?,
        cluster: cluster.transpose()?,
        severity: [Severity::Info, Severity::Warning, Severity::Error]
            .into_iter()
            .find(|known| known.as_str() == severity)
            .ok_or_else(|| sqlx::Error::Decode(format!("severity {severity:?}").into()))?,
        object,
        what,
        actor,
    })
}
