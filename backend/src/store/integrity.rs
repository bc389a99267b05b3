//! Whether the database is whole: SQLite's own checks, and what every database of the controller
//! holds besides.

use isopath_api::declare::Declaration;
use sqlx::SqliteConnection;

use super::{clusters, declared, open};

/// The primary result codes of SQLite for a file that is not as it left it.
const CORRUPT: i32 = 11;
const NOTADB: i32 = 26;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What a start can wait for: all pages, without the indexes' content.
    Quick,
    /// Everything.
    Full,
}

/// What is wrong with the database, a sentence each; empty when it is whole.
///
/// # Errors
/// When it cannot be read for another reason than damage.
pub async fn check(
    connection: &mut SqliteConnection,
    depth: Depth,
) -> Result<Vec<String>, sqlx::Error> {
    let found = match of_sqlite(connection, depth).await {
        Ok(found) if found.is_empty() => of_ours(connection, depth).await,
        other => other,
    };
    match found {
        Ok(found) => Ok(found),
        Err(error) => damage(&error).map(|finding| vec![finding]).ok_or(error),
    }
}

/// What an error says of the file; nothing when it is another kind of error.
pub(crate) fn damage(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code: i32 = error.code()?.parse().ok()?;
    let damaged = [CORRUPT, NOTADB].contains(&(code & 0xff));
    damaged.then(|| format!("SQLite {code}: {}", error.message()))
}

async fn of_sqlite(
    connection: &mut SqliteConnection,
    depth: Depth,
) -> Result<Vec<String>, sqlx::Error> {
    let pragma = match depth {
        Depth::Quick => "PRAGMA quick_check",
        Depth::Full => "PRAGMA integrity_check",
    };
    let mut found: Vec<String> = sqlx::query_scalar(pragma)
        .fetch_all(&mut *connection)
        .await?;
    found.retain(|line| line != "ok");
    let dangling: Vec<(String, i64, String, i64)> = sqlx::query_as("PRAGMA foreign_key_check")
        .fetch_all(connection)
        .await?;
    found.extend(dangling.into_iter().map(|(table, row, parent, _)| {
        format!("row {row} of {table} refers to a row of {parent} that is not there")
    }));
    Ok(found)
}

/// What holds between the tables of this release; nothing is asked of another one's.
async fn of_ours(
    connection: &mut SqliteConnection,
    depth: Depth,
) -> Result<Vec<String>, sqlx::Error> {
    if !open::is_up_to_date(connection).await? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (what, query) in QUERIES {
        let rows: Vec<String> = sqlx::query_scalar(query)
            .fetch_all(&mut *connection)
            .await?;
        found.extend(rows.into_iter().map(|row| format!("{what}: {row}")));
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let declarations: Vec<(String, i64, String)> = sqlx::query_as(match depth {
        Depth::Quick => {
            "SELECT r.cluster, r.revision, r.declaration FROM clusters c \
             JOIN revisions r ON r.cluster = c.name AND r.revision = c.revision"
        }
        Depth::Full => "SELECT cluster, revision, declaration FROM revisions",
    })
    .fetch_all(&mut *connection)
    .await?;
    for (cluster, revision, text) in declarations {
        if let Err(error) = serde_json::from_str::<Declaration>(&text) {
            found.push(format!(
                "revision {revision} of cluster {cluster} cannot be read: {error}"
            ));
        }
    }
    if found.is_empty() {
        for row in clusters::all(&mut *connection).await? {
            found.extend(of_cluster(connection, &row, depth).await?);
        }
    }
    Ok(found)
}

async fn of_cluster(
    connection: &mut SqliteConnection,
    row: &clusters::ClusterRow,
    depth: Depth,
) -> Result<Vec<String>, sqlx::Error> {
    let (name, revision) = (&row.name, row.revision);
    let mut found = Vec::new();
    let mut rows: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM directors WHERE cluster = $1 AND declared = 1 ORDER BY name",
    )
    .bind(name.as_str())
    .fetch_all(&mut *connection)
    .await?;
    for spec in &row.declaration.director {
        match rows.iter().position(|row| row == spec.name.as_str()) {
            Some(place) => drop(rows.remove(place)),
            None => found.push(format!(
                "director {} of cluster {name} is declared by revision {revision} and has no row",
                spec.name
            )),
        }
    }
    for row in rows {
        found.push(format!(
            "director {row} of cluster {name} has a row and is not declared by revision {revision}"
        ));
    }
    // A start brings these in line; what writes them together with the revision never has to.
    if depth == Depth::Full {
        for table in declared::differing(connection, name, &row.declaration).await? {
            found.push(format!(
                "table {table} is not as revision {revision} of cluster {name} says"
            ));
        }
    }
    Ok(found)
}

/// Each finds nothing in a database that is whole.
const QUERIES: [(&str, &str); 5] = [
    (
        "a cluster whose revision is not there",
        "SELECT c.name FROM clusters c LEFT JOIN revisions r \
         ON r.cluster = c.name AND r.revision = c.revision WHERE r.revision IS NULL",
    ),
    (
        "a cluster with revisions after the one in force",
        "SELECT c.name FROM clusters c JOIN revisions r ON r.cluster = c.name \
         WHERE r.revision > c.revision GROUP BY c.name",
    ),
    (
        "a cluster whose revisions are not numbered through",
        "SELECT c.name FROM clusters c JOIN revisions r ON r.cluster = c.name \
         GROUP BY c.name, c.revision HAVING count(*) <> c.revision",
    ),
    (
        "a director whose generation is of a revision that is not there",
        "SELECT d.cluster || '/' || d.name FROM directors d LEFT JOIN revisions r \
         ON r.cluster = d.cluster AND r.revision = d.desired_revision WHERE r.revision IS NULL",
    ),
    (
        "clusters without an epoch",
        "SELECT name FROM clusters WHERE NOT EXISTS (SELECT 1 FROM epoch)",
    ),
];

#[cfg(test)]
mod tests;
