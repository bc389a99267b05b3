//! Who changed what, and who was refused what.

use axum::extract::State;
use axum::response::Response;
use isopath_api::access::{AuditView, LONGEST_NAME, Outcome};
use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::openapi::Reads;
use super::super::page::{Cursor, Page};
use super::super::path::Query;
use crate::app::App;
use crate::auth::Admin;
use crate::error::Error;
use crate::store::audit::{self, Filter};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Only those of this user or token.
    #[param(max_length = 64)]
    principal: Option<String>,
    /// Only those of this cluster.
    cluster: Option<ClusterName>,
    /// Only those that ended so.
    outcome: Option<Outcome>,
    /// Only those from this moment on.
    from: Option<Timestamp>,
    /// Only those before this moment.
    to: Option<Timestamp>,
    /// How many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the last answer ended: the `cursor` of its `Link` header.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

impl AuditQuery {
    /// The filters that were given, as a link repeats them.
    fn given(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let length = self.principal.as_deref().map_or(0, str::len);
        if length > LONGEST_NAME {
            return Err(Error::BadRequest {
                detail: format!("?principal: expected at most {LONGEST_NAME}, found {length}"),
            });
        }
        let given = [
            ("principal", self.principal.clone()),
            ("cluster", self.cluster.as_ref().map(ToString::to_string)),
            ("outcome", self.outcome.map(|it| it.as_str().to_owned())),
            ("from", self.from.map(|it| it.to_string())),
            ("to", self.to.map(|it| it.to_string())),
        ];
        let given = given.into_iter();
        Ok(given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect())
    }
}

/// `GET /audit`, newest first.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "access",
    params(AuditQuery),
    responses((status = 200, description = "Changes and refusals, newest first", body = Vec<AuditView>), Reads)
)]
pub(super) async fn list(
    _: Admin,
    Query(query): Query<AuditQuery>,
    State(app): State<App>,
) -> Result<Response, Error> {
    let given = query.given()?;
    let asked = format!("audit {given:?}");
    let page = Page::new(query.limit, query.cursor.as_deref(), &asked)?;
    let filter = Filter {
        principal: query.principal,
        cluster: query.cluster,
        outcome: query.outcome,
        from: query.from,
        to: query.to,
    };
    let mut reader = app.store().read().await?;
    let found = audit::list(&mut reader, &filter, page.last(), page.fetch()).await?;
    let cursor = |entry: &AuditView| Cursor::new(entry.id, &asked);
    Ok(page.answer(found, "/api/v1/audit", &given, cursor))
}
