//! The declaration in force, in tables of its own.
//!
//! They follow from the revision in force and are written with it, in one transaction; what is
//! written is the difference to what they have, so that a large cluster's small change stays a
//! small write. The revision is the truth: tables that say otherwise, such as those of a database
//! from before there were any, are brought in line at the start ([`repair`]).

use std::collections::BTreeMap;
use std::time::Duration;

use isopath_api::declare::{Declaration, ServiceSpec};
use isopath_api::ids::{ClusterName, Packets};
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Column, Row, SqliteConnection, TypeInfo, ValueRef};

/// A table that mirrors part of a declaration. Beside these columns it has `cluster`.
#[derive(Debug)]
struct Table {
    name: &'static str,
    /// What identifies a row in its cluster.
    key: &'static [&'static str],
    rest: &'static [&'static str],
    /// Whether a row that is declared no more stays, with `declared = 0`, because other things
    /// hang on it.
    kept: bool,
}

const SWITCHES: Table = Table {
    name: "switches",
    key: &["name"],
    rest: &["router_id"],
    kept: false,
};

const VIPS: Table = Table {
    name: "vips",
    key: &["vip"],
    rest: &["announce_as", "cost", "require"],
    kept: true,
};

const VIP_COSTS: Table = Table {
    name: "vip_costs",
    key: &["vip", "director"],
    rest: &["cost"],
    kept: false,
};

const SERVICES: Table = Table {
    name: "services",
    key: &["service"],
    rest: &[
        "vip",
        "protocol",
        "port",
        "fwmark",
        "scheduler",
        "flags",
        "forwarding",
        "tunnel",
        "tunnel_port",
        "tunnel_checksum",
        "persistence_s",
        "persistence_netmask",
        "quorum",
    ],
    kept: true,
};

const REAL_SERVERS: Table = Table {
    name: "real_servers",
    key: &["service", "address", "port"],
    rest: &["weight", "upper_threshold", "lower_threshold"],
    kept: true,
};

const CHECKS: Table = Table {
    name: "checks",
    key: &["service"],
    rest: &[
        "kind",
        "port",
        "path",
        "host",
        "status",
        "verify",
        "interval_us",
        "timeout_us",
        "rise",
        "fall",
    ],
    kept: false,
};

/// What others refer to comes before them.
const TABLES: [&Table; 6] = [
    &SWITCHES,
    &VIPS,
    &VIP_COSTS,
    &SERVICES,
    &REAL_SERVERS,
    &CHECKS,
];

/// Rows of one statement: far below SQLite's limit of bound values, and few enough statements.
const BATCH: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl Cell {
    fn text(value: impl std::fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    fn text_or_null(value: Option<impl std::fmt::Display>) -> Self {
        value.map_or(Self::Null, Self::text)
    }

    fn int_or_null(value: Option<impl Into<i64>>) -> Self {
        value.map_or(Self::Null, |value| Self::Int(value.into()))
    }

    fn micros(value: Duration) -> Self {
        Self::Int(i64::try_from(value.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A table's rows of one cluster: by their keys, the other columns.
type Rows = BTreeMap<Vec<Cell>, Vec<Cell>>;

/// All rows that a declaration makes, in the order of [`TABLES`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Declared([Rows; TABLES.len()]);

impl Declared {
    fn nothing() -> Self {
        Self(Default::default())
    }

    fn of(declaration: &Declaration) -> Self {
        let mut switches = Rows::new();
        for switch in &declaration.switch {
            switches.insert(
                vec![Cell::text(&switch.name)],
                vec![Cell::text(switch.router_id)],
            );
        }
        let (mut vips, mut costs) = (Rows::new(), Rows::new());
        for vip in &declaration.vip {
            let key = Cell::text(vip.address);
            let announce = vip.announce;
            let rest = vec![
                Cell::text(announce.kind),
                Cell::Int(announce.cost.into()),
                Cell::text(vip.require),
            ];
            vips.insert(vec![key.clone()], rest);
            for (director, cost) in &vip.director_cost {
                let key = vec![key.clone(), Cell::text(director)];
                costs.insert(key, vec![Cell::Int((*cost).into())]);
            }
        }
        let (mut services, mut real_servers) = (Rows::new(), Rows::new());
        let mut checks = Rows::new();
        for service in &declaration.service {
            let key = Cell::text(service.id());
            services.insert(vec![key.clone()], service_cells(service));
            checks.insert(vec![key.clone()], check_cells(service));
            for server in &service.real_server {
                let id = service.real_server_id(server).0;
                real_servers.insert(
                    vec![
                        key.clone(),
                        Cell::text(id.ip()),
                        Cell::Int(id.port().into()),
                    ],
                    vec![
                        Cell::Int(server.weight.into()),
                        Cell::Int(server.upper_threshold.into()),
                        Cell::Int(server.lower_threshold.into()),
                    ],
                );
            }
        }
        Self([switches, vips, costs, services, real_servers, checks])
    }
}

/// In the order of [`SERVICES`].
fn service_cells(service: &ServiceSpec) -> Vec<Cell> {
    let id = service.id();
    let (protocol, port, fwmark) = match id.packets {
        Packets::To { protocol, port } => {
            (Cell::text(protocol), Cell::Int(port.into()), Cell::Null)
        }
        Packets::Marked(mark) => (Cell::Null, Cell::Null, Cell::Int(mark.into())),
    };
    let flags: Vec<_> = service.flags().iter().map(|flag| flag.as_str()).collect();
    let tunnel = service.tunnel();
    let persistence = service.persistence;
    vec![
        Cell::text(service.vip),
        protocol,
        port,
        fwmark,
        Cell::text(service.scheduler),
        Cell::text(flags.join(",")),
        Cell::text(service.forwarding),
        Cell::text_or_null(tunnel.map(|tunnel| tunnel.kind)),
        Cell::int_or_null(tunnel.and_then(|tunnel| tunnel.port)),
        Cell::text_or_null(tunnel.map(|tunnel| tunnel.checksum)),
        persistence.map_or(Cell::Null, |it| {
            Cell::Int(i64::try_from(it.timeout.as_secs()).unwrap_or(i64::MAX))
        }),
        Cell::text_or_null(persistence.and_then(|it| it.netmask)),
        Cell::Int(service.quorum.into()),
    ]
}

/// In the order of [`CHECKS`].
fn check_cells(service: &ServiceSpec) -> Vec<Cell> {
    let check = &service.check;
    vec![
        Cell::text(check.kind),
        Cell::int_or_null(check.port),
        Cell::text_or_null(check.path.as_ref()),
        Cell::text_or_null(check.host.as_ref()),
        Cell::text_or_null(check.status),
        Cell::Int(check.verify.into()),
        Cell::micros(check.interval),
        Cell::micros(check.timeout),
        Cell::Int(check.rise.into()),
        Cell::Int(check.fall.into()),
    ]
}

/// Brings a cluster's tables from `before`, which they have, to `now`. The rows of its directors
/// are written before.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    before: Option<&Declaration>,
    now: &Declaration,
) -> Result<(), sqlx::Error> {
    let before = before.map_or_else(Declared::nothing, Declared::of);
    write(connection, cluster, &before, &Declared::of(now)).await
}

/// Brings a cluster's tables in line with the declaration in force, whatever they have; whether
/// there was anything to do.
///
/// # Errors
/// When the database cannot be read or written to.
pub async fn repair(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    declaration: &Declaration,
) -> Result<bool, sqlx::Error> {
    let (before, now) = (load(connection, cluster).await?, Declared::of(declaration));
    if before == now {
        return Ok(false);
    }
    write(connection, cluster, &before, &now).await?;
    Ok(true)
}

/// The tables of a cluster that are not as its declaration says.
///
/// # Errors
/// When the database cannot be read.
pub async fn differing(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    declaration: &Declaration,
) -> Result<Vec<&'static str>, sqlx::Error> {
    let (found, expected) = (load(connection, cluster).await?, Declared::of(declaration));
    let tables = TABLES.iter().zip(found.0.iter().zip(&expected.0));
    Ok(tables
        .filter(|(_, (found, expected))| found != expected)
        .map(|(table, _)| table.name)
        .collect())
}

async fn write(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    before: &Declared,
    now: &Declared,
) -> Result<(), sqlx::Error> {
    for (table, (before, now)) in TABLES.iter().zip(before.0.iter().zip(&now.0)) {
        let changed: Vec<_> = now
            .iter()
            .filter(|(key, rest)| before.get(*key) != Some(*rest))
            .collect();
        for batch in changed.chunks(BATCH) {
            upsert(connection, table, cluster, batch).await?;
        }
    }
    // Whoever refers to others goes before them.
    for (table, (before, now)) in TABLES.iter().zip(before.0.iter().zip(&now.0)).rev() {
        for key in before.keys().filter(|key| !now.contains_key(*key)) {
            forget(connection, table, cluster, key).await?;
        }
    }
    Ok(())
}

async fn upsert(
    connection: &mut SqliteConnection,
    table: &Table,
    cluster: &ClusterName,
    rows: &[(&Vec<Cell>, &Vec<Cell>)],
) -> Result<(), sqlx::Error> {
    let columns: Vec<_> = table.key.iter().chain(table.rest).copied().collect();
    let (declared, one) = if table.kept {
        (", declared", ", 1")
    } else {
        ("", "")
    };
    let mut number = 1;
    let values: Vec<_> = rows
        .iter()
        .map(|_| {
            let places: Vec<_> = columns
                .iter()
                .map(|_| {
                    number += 1;
                    format!("${number}")
                })
                .collect();
            format!("($1, {}{one})", places.join(", "))
        })
        .collect();
    let mut updates: Vec<_> = table
        .rest
        .iter()
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    if table.kept {
        updates.push("declared = 1".to_owned());
    }
    let text = format!(
        "INSERT INTO {} (cluster, {}{declared}) VALUES {} ON CONFLICT (cluster, {}) \
         DO UPDATE SET {}",
        table.name,
        columns.join(", "),
        values.join(", "),
        table.key.join(", "),
        updates.join(", "),
    );
    // Only names of this file's tables are in the text, never a value.
    let mut query = sqlx::query(AssertSqlSafe(text)).bind(cluster.as_str());
    for (key, rest) in rows {
        for cell in key.iter().chain(*rest) {
            query = bind(query, cell);
        }
    }
    // Its text depends on the number of rows: not worth a place among the prepared ones.
    query.persistent(false).execute(connection).await?;
    Ok(())
}

/// A row that is declared no more.
async fn forget(
    connection: &mut SqliteConnection,
    table: &Table,
    cluster: &ClusterName,
    key: &[Cell],
) -> Result<(), sqlx::Error> {
    let columns = table.key.iter().zip(2..);
    let places: Vec<_> = columns.map(|(name, n)| format!("{name} = ${n}")).collect();
    let (name, places) = (table.name, places.join(" AND "));
    let text = if table.kept {
        format!("UPDATE {name} SET declared = 0 WHERE cluster = $1 AND {places}")
    } else {
        format!("DELETE FROM {name} WHERE cluster = $1 AND {places}")
    };
    let mut query = sqlx::query(AssertSqlSafe(text)).bind(cluster.as_str());
    for cell in key {
        query = bind(query, cell);
    }
    query.execute(connection).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

fn bind<'q>(query: Query<'q>, cell: &Cell) -> Query<'q> {
    match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Int(value) => query.bind(*value),
        Cell::Text(value) => query.bind(value.clone()),
    }
}

/// What the tables have of a cluster and is declared.
async fn load(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
) -> Result<Declared, sqlx::Error> {
    let mut found = Declared::nothing();
    for (table, into) in TABLES.iter().zip(&mut found.0) {
        let columns: Vec<_> = table.key.iter().chain(table.rest).copied().collect();
        let declared = if table.kept { " AND declared = 1" } else { "" };
        let text = format!(
            "SELECT {} FROM {} WHERE cluster = $1{declared}",
            columns.join(", "),
            table.name
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(cluster.as_str())
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let mut cells = row
                .columns()
                .iter()
                .map(|column| cell(&row, column.ordinal()));
            let key = cells
                .by_ref()
                .take(table.key.len())
                .collect::<Result<_, _>>()?;
            let rest = cells.collect::<Result<_, _>>()?;
            into.insert(key, rest);
        }
    }
    Ok(found)
}

fn cell(row: &sqlx::sqlite::SqliteRow, place: usize) -> Result<Cell, sqlx::Error> {
    let value = row.try_get_raw(place)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    match value.type_info().name() {
        "INTEGER" => row.try_get(place).map(Cell::Int),
        "TEXT" => row.try_get(place).map(Cell::Text),
        other => Err(sqlx::Error::Decode(
            format!("a column of type {other}").into(),
        )),
    }
}

#[cfg(test)]
mod tests;
