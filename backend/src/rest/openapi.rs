//! The API's description (OpenAPI 3.1), generated from the handlers.
//!
//! A new handler has `#[utoipa::path]` with its method, its path below `/api/v1`, its tag, the
//! answers that are its own, and one of the groups of refusals here: `Reads` for one that only
//! reads, `Changes` for one that takes a body, `Reports` for what agents send. It is then
//! listed in `rest::api` with `routes!`. What a field's limits are stands in its type's
//! schema, and is checked where the body is parsed.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use isopath_api::desired::Desired;
use isopath_api::problem::{MEDIA_TYPE, Problem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi as _, ToSchema as _};

use crate::app::App;

/// What the handlers do not say themselves.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Isopath controller",
        description = "Clusters of Linux Virtual Server directors behind one VIP.",
    ),
    components(schemas(Problem, Desired)),
    security(("token" = [])),
    tags(
        (name = "clusters", description = "What is declared, and what is seen"),
        (name = "directors", description = "Directors"),
        (name = "real servers", description = "Real servers"),
        (name = "operations", description = "Drains and undrains, under way and ended"),
        (name = "events", description = "What happened"),
        (name = "agents", description = "What directors' agents use"),
        (name = "access", description = "People and tokens"),
    ),
    modifiers(&Security),
)]
struct Frame;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token that `isopathd token create` printed: `ispu_` for people and scripts, \
                 `ispa_` for agents.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let certificate = SecurityScheme::MutualTls {
            description: Some("The certificate of an agent that has enrolled.".to_owned()),
            deprecated: None,
            extensions: None,
        };
        components.add_security_scheme("certificate", certificate);
    }
}

/// The document before the handlers are added.
pub(super) fn frame() -> OpenApi {
    Frame::openapi()
}

/// The whole document.
pub fn document() -> OpenApi {
    super::api().into_openapi()
}

/// `GET /api/openapi.json`
pub(super) async fn show(State(_): State<App>) -> Json<OpenApi> {
    Json(document())
}

/// Refusals as a handler's `responses` take them.
macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident: $($status:literal),+ $(,)?) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$($status),+]
                    .into_iter()
                    .map(|status: u16| (status.to_string(), problem(status).into()))
                    .collect()
            }
        }
    };
}

refusals! {
    /// Of a handler that only reads.
    Reads: 400, 401, 403, 404, 405, 429, 503
}
refusals! {
    /// Of a handler that changes something.
    Changes: 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428, 429, 503
}
refusals! {
    /// Of a handler that agents use.
    Reports: 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 503
}

fn problem(status: u16) -> Response {
    let description = match status {
        400 => "The query or a header is not understood.",
        401 => "Nobody, or nobody known, asks.",
        403 => "Whoever asks may not.",
        404 => "There is no such thing.",
        405 => "The resource does not take that method.",
        409 => "It contradicts the present state, or a guard refuses.",
        412 => "It was changed by someone else in between.",
        413 => "The body is larger than the resource takes.",
        415 => "The body is of another type than the resource takes.",
        422 => "The body breaks rules; each is named with a JSON pointer.",
        428 => "The request must say with If-Match what it changes.",
        429 => "Asked too often; Retry-After says when to come back.",
        _ => "The controller cannot do it now; Retry-After says when to come back.",
    };
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(MEDIA_TYPE, content)
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    #[test]
    fn every_operation_says_who_may_be_refused_and_how() {
        let document = json();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 10, "{:?}", paths.keys());
        for (path, methods) in paths {
            assert!(path.starts_with("/api/v1/"), "{path}");
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("401"), "{method} {path}");
                let tags = operation["tags"].as_array().unwrap();
                assert_eq!(tags.len(), 1, "{method} {path}: {tags:?}");
                for (status, response) in responses {
                    let is_refusal = status.starts_with('4') || status.starts_with('5');
                    let has_problem = response["content"].get(MEDIA_TYPE).is_some();
                    assert_eq!(is_refusal, has_problem, "{method} {path} {status}");
                }
            }
        }
    }

    /// utoipa names schemas by the bare name of their type: the second of two types of one name
    /// takes the place of the first, and what is said of the first is no longer true.
    #[test]
    fn no_two_types_have_one_name() {
        let mut collected = Vec::new();
        <isopath_api::view::ClusterView as utoipa::ToSchema>::schemas(&mut collected);
        <isopath_api::declare::Declaration as utoipa::ToSchema>::schemas(&mut collected);
        <isopath_api::observed::Observed as utoipa::ToSchema>::schemas(&mut collected);
        <Desired as utoipa::ToSchema>::schemas(&mut collected);
        <isopath_api::ecmp::EcmpView as utoipa::ToSchema>::schemas(&mut collected);
        assert!(collected.len() > 50, "{}", collected.len());
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        for (name, schema) in collected {
            let schema = serde_json::to_value(schema).unwrap();
            if let Some(other) = known.insert(name.clone(), schema.clone()) {
                assert_eq!(schema, other, "two types are called {name}");
            }
        }
    }

    /// Whoever changes the API sees it in the change of this file: `make openapi` writes it.
    #[test]
    fn the_document_is_the_one_that_is_kept() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let now = format!("{:#}\n", json());
        if std::env::var_os("ISOPATH_WRITE_OPENAPI").is_some() {
            std::fs::write(path, now).unwrap();
            return;
        }
        let kept = std::fs::read_to_string(path).unwrap();
        let lines = kept.lines().zip(now.lines()).enumerate();
        let mut lines = lines.filter(|(_, (kept, now))| kept != now);
        let first = lines.next().map(|(line, (kept, now))| {
            format!("line {}: {} became {}", line + 1, kept.trim(), now.trim())
        });
        assert!(
            kept == now,
            "docs/openapi.json is no longer what the handlers say ({}); if that is meant, run \
             `make openapi` and commit it",
            first.as_deref().unwrap_or("it ends elsewhere")
        );
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = json();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
