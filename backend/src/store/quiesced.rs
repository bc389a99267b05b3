//! Real servers and VIPs that are out of service.

use isopath_api::desired::AdminState;
use isopath_api::ids::{ClusterName, RealServerId, ServiceId, Vip};
use sqlx::SqliteConnection;

use super::decode;
use super::directors::parse_admin_state;
use crate::control::quiesced::{Quiesced, QuiescedServer, QuiescedVip};

/// Everything that is out of service in a cluster.
///
/// # Errors
/// When the database cannot be read.
pub async fn of_cluster(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
) -> Result<Quiesced, sqlx::Error> {
    let mut quiesced = Quiesced::default();
    let servers: Vec<(String, String, i64, String, bool, String)> = sqlx::query_as(
        "SELECT service, address, port, admin_state, removed, admin_reason \
         FROM drained_real_servers WHERE cluster = $1",
    )
    .bind(cluster.as_str())
    .fetch_all(&mut *connection)
    .await?;
    for (service, address, port, state, removed, reason) in servers {
        let service = service.parse().map_err(|e| decode("a service", e))?;
        let server = format!("{address}:{port}");
        let server = server.parse().map_err(|e| decode("a real server", e))?;
        let state = parse_admin_state(&state)?;
        let server_state = QuiescedServer {
            state,
            removed,
            reason,
        };
        quiesced
            .real_servers
            .insert((service, server), server_state);
    }
    let vips: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT vip, admin_state, admin_reason FROM drained_vips WHERE cluster = $1",
    )
    .bind(cluster.as_str())
    .fetch_all(connection)
    .await?;
    for (vip, state, reason) in vips {
        let vip = vip.parse().map_err(|e| decode("a VIP", e))?;
        let state = parse_admin_state(&state)?;
        quiesced.vips.insert(vip, QuiescedVip { state, reason });
    }
    Ok(quiesced)
}

/// Stores what is wanted of a real server; nothing where it is active again.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put_server(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    (service, server): (ServiceId, RealServerId),
    wanted: Option<&QuiescedServer>,
) -> Result<(), sqlx::Error> {
    let Some(QuiescedServer {
        state,
        removed,
        reason,
    }) = wanted.filter(|wanted| wanted.state != AdminState::Active)
    else {
        sqlx::query(
            "DELETE FROM drained_real_servers \
             WHERE cluster = $1 AND service = $2 AND address = $3 AND port = $4",
        )
        .bind(cluster.as_str())
        .bind(service.to_string())
        .bind(server.0.ip().to_string())
        .bind(i64::from(server.0.port()))
        .execute(connection)
        .await?;
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO drained_real_servers \
         (cluster, service, address, port, admin_state, removed, admin_reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (cluster, service, address, port) DO UPDATE SET \
         admin_state = excluded.admin_state, removed = excluded.removed, \
         admin_reason = excluded.admin_reason",
    )
    .bind(cluster.as_str())
    .bind(service.to_string())
    .bind(server.0.ip().to_string())
    .bind(i64::from(server.0.port()))
    .bind(state.as_str())
    .bind(*removed)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores what is wanted of a VIP; nothing where it is active again.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put_vip(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    vip: Vip,
    wanted: Option<&QuiescedVip>,
) -> Result<(), sqlx::Error> {
    let Some(QuiescedVip { state, reason }) =
        wanted.filter(|wanted| wanted.state != AdminState::Active)
    else {
        sqlx::query("DELETE FROM drained_vips WHERE cluster = $1 AND vip = $2")
            .bind(cluster.as_str())
            .bind(vip.to_string())
            .execute(connection)
            .await?;
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO drained_vips (cluster, vip, admin_state, admin_reason) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (cluster, vip) DO UPDATE SET \
         admin_state = excluded.admin_state, admin_reason = excluded.admin_reason",
    )
    .bind(cluster.as_str())
    .bind(vip.to_string())
    .bind(state.as_str())
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}
