//! The schemas of what is written as a text of its own form (feature `openapi`).

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::declare::{DrainLimit, Netmask, Require, StatusRange};
use crate::digest::ServiceDigest;
use crate::ids::{AreaId, ClusterName, DirectorName, RealServerId, RouterId, ServiceId, Vip};

/// A text with its form, its length and an example.
macro_rules! text {
    ($type:ty, $description:literal, $pattern:expr, $most:literal, $example:literal) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .pattern(Some($pattern))
                    .max_length(Some($most))
                    .examples([serde_json::json!($example)])
                    .into()
            }
        }

        impl ToSchema for $type {}
    };
}

/// A DNS label.
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// Four decimal numbers of one byte each, with no zero before them.
macro_rules! quad {
    () => {
        r"((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}

text!(
    ClusterName,
    "The name of a cluster: a DNS label.",
    LABEL,
    63,
    "edge-fra"
);
text!(
    DirectorName,
    "The name of a director: a DNS label.",
    LABEL,
    63,
    "d1"
);
text!(
    RouterId,
    "An OSPF router id.",
    concat!("^", quad!(), "$"),
    15,
    "10.0.1.2"
);
text!(
    AreaId,
    "An OSPF area id.",
    concat!("^", quad!(), "$"),
    15,
    "0.0.0.0"
);
text!(
    Vip,
    "A virtual IP address: one host, with or without /32.",
    concat!("^", quad!(), "(/32)?$"),
    18,
    "10.99.0.1"
);
text!(
    RealServerId,
    "A real server's address and port.",
    concat!("^", quad!(), ":[0-9]{1,5}$"),
    21,
    "10.1.0.11:80"
);
text!(
    ServiceId,
    "A service: protocol, VIP and port, or VIP and firewall mark.",
    concat!("^(tcp|udp|sctp|fwmark):", quad!(), ":[0-9]{1,10}$"),
    34,
    "tcp:10.99.0.1:80"
);
text!(
    ServiceDigest,
    "A hash of what decides where a service's clients land: its version, then the hash.",
    "^[0-9a-f]{18}$",
    18,
    "020000000000000000"
);
text!(
    Netmask,
    "A netmask as a dotted quad.",
    concat!("^", quad!(), "$"),
    15,
    "255.255.255.255"
);
text!(
    StatusRange,
    "An HTTP status, or an inclusive range of them.",
    "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$",
    7,
    "200-399"
);
text!(DrainLimit, "A duration.", "^.+$", 64, "5m");

impl PartialSchema for Require {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["all", "any"]));
        let count = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(1))
            .maximum(Some(u16::MAX));
        OneOfBuilder::new()
            .description(Some("How many services must be healthy."))
            .item(word)
            .item(count)
            .into()
    }
}

impl ToSchema for Require {}
