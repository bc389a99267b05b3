//! Measurements over time, as the controller answers them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::ClusterName;

/// What `GET /api/v1/clusters/{c}/samples` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SamplesView {
    /// The cluster.
    pub cluster: ClusterName,
    /// The moment of the first value of every series.
    pub from: Timestamp,
    /// The time from one value to the next, in seconds.
    pub step_s: u32,
    /// The objects that were measured, by name.
    pub objects: Vec<ObjectSamples>,
}

/// What was measured of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ObjectSamples {
    /// Such as `director/d1`, `vip/10.99.0.1`, `service/tcp:10.99.0.1:80` or
    /// `real-server/tcp:10.99.0.1:80/10.1.0.11:80`.
    pub object: String,
    /// Its series.
    pub series: Vec<SeriesSamples>,
}

/// One series: all of an answer's are equally long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeriesSamples {
    /// Such as `packets_per_second`, `connections_per_second`, `active` or `width`.
    pub name: String,
    /// Its values; nothing where nobody knew.
    pub values: Vec<Option<u32>>,
}
