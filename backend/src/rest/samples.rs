//! Measurements over time.

use axum::Json;
use axum::extract::State;
use isopath_api::ids::ClusterName;
use isopath_api::samples::{ObjectSamples, SamplesView, SeriesSamples};
use jiff::Timestamp;
use serde::Deserialize;

use super::openapi::Reads;
use super::path::{OfCluster, Query};
use crate::app::App;
use crate::auth::Viewer;
use crate::error::Error;
use crate::samples::{COARSE_S, Range, STEP_S, Selection, find};

/// The most values of one answer: some hundred kilobytes.
const MOST_VALUES: usize = 100_000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SamplesQuery {
    /// One object, such as `director/d1`, `vip/10.99.0.1`, `service/tcp:10.99.0.1:80` or
    /// `real-server/tcp:10.99.0.1:80/10.1.0.11:80`; or a kind, such as `director`, for all of it.
    #[param(
        max_length = 100,
        pattern = "^(director|vip|service|real-server)(/.+)?$"
    )]
    object: String,
    /// The first moment; an hour before `to` when absent.
    from: Option<Timestamp>,
    /// The moment after the last; now when absent.
    to: Option<Timestamp>,
    /// The most seconds from one value to the next: below 300 there is one every 10 seconds. By
    /// the length of the time asked for when absent.
    #[param(minimum = 10, maximum = 300)]
    step: Option<u32>,
}

/// `GET /clusters/{cluster}/samples`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/samples",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster"), SamplesQuery),
    responses((status = 200, description = "What was measured", body = SamplesView), Reads)
)]
pub(super) async fn list(
    _: Viewer,
    OfCluster(name): OfCluster,
    Query(query): Query<SamplesQuery>,
    State(app): State<App>,
) -> Result<Json<SamplesView>, Error> {
    let world = app.world();
    if !world.clusters.contains_key(&name) {
        return Err(Error::not_found(format_args!("cluster {name}")));
    }
    let selection = query.object.parse().map_err(|error| bad("object", error))?;
    let range = range(&query, app.clock().now().wall)?;
    let from = Timestamp::from_millisecond(range.from_ms).map_err(|error| bad("from", error))?;
    let open = app.samples();
    let mut reader = app.store().read().await?;
    let found = find(&mut reader, &open, (&name, &selection), range).await?;
    drop(reader);
    let values: usize = found.values().flatten().map(Vec::len).sum();
    if values > MOST_VALUES {
        return Err(Error::BadRequest {
            detail: format!(
                "expected at most {MOST_VALUES} values, found {values}: ask for one object, for \
                 less time, or in steps of {COARSE_S}"
            ),
        });
    }
    if let (Selection::One(object), true) = (&selection, found.is_empty()) {
        return Err(Error::not_found(format_args!("measurement of {object}")));
    }
    let objects = found.into_iter().map(|(object, series)| ObjectSamples {
        series: object
            .series()
            .iter()
            .zip(series)
            .map(|(name, values)| SeriesSamples {
                name: (*name).to_owned(),
                values,
            })
            .collect(),
        object: object.to_string(),
    });
    Ok(Json(SamplesView {
        cluster: name,
        from,
        step_s: range.step_s,
        objects: objects.collect(),
    }))
}

fn range(query: &SamplesQuery, now: Timestamp) -> Result<Range, Error> {
    let to_ms = query.to.unwrap_or(now).as_millisecond();
    let from_ms = match query.from {
        Some(from) => from.as_millisecond(),
        None => to_ms - 3_600_000,
    };
    if from_ms >= to_ms {
        return Err(bad("from", "expected a moment before `to`"));
    }
    let fine = to_ms - from_ms <= 2 * 3_600_000;
    let step_s = match query.step {
        None if fine => STEP_S,
        None => COARSE_S,
        Some(COARSE_S) => COARSE_S,
        Some(step) if (STEP_S..COARSE_S).contains(&step) => STEP_S,
        Some(step) => {
            let detail = format!("expected a number from {STEP_S} to {COARSE_S}, found {step}");
            return Err(bad("step", detail));
        }
    };
    let range = Range::new(from_ms, to_ms, step_s);
    if range.points > MOST_VALUES {
        let detail = format!("expected at most {MOST_VALUES} steps of {step_s} s before `to`");
        return Err(bad("from", detail));
    }
    Ok(range)
}

fn bad(parameter: &str, detail: impl std::fmt::Display) -> Error {
    Error::BadRequest {
        detail: format!("{parameter}: {detail}"),
    }
}
