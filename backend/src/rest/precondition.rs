//! `If-Match` and `If-None-Match` (RFC 9110 §13.1) on what has revisions.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::control::Precondition;
use crate::error::Error;

/// The entity tag of a revision.
pub(crate) fn etag(revision: u64) -> String {
    format!("\"r{revision}\"")
}

/// The same as a header's value.
pub(crate) fn etag_value(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&etag(revision)).expect("digits are visible ASCII")
}

/// What a request says that it changes, as an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected(pub(super) Precondition);

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parse(&parts.headers).map(Self)
    }
}

fn parse(headers: &HeaderMap) -> Result<Precondition, Error> {
    let some = tags(headers, &header::IF_MATCH)?;
    let none = tags(headers, &header::IF_NONE_MATCH)?;
    match (some, none) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::Revisions(revisions)), None) => Ok(Precondition::Revision(revisions)),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::Revisions(_))) => Err(Error::BadRequest {
            detail: "header if-none-match: expected * on a change, which makes what is not there \
                     yet"
            .to_owned(),
        }),
        (Some(_), Some(_)) => Err(Error::BadRequest {
            detail: "expected if-match or if-none-match, found both".to_owned(),
        }),
    }
}

enum Tags {
    Any,
    Revisions(Vec<u64>),
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Error> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let malformed = || Error::BadRequest {
        detail: format!(
            "header {name}: expected * or entity tags such as \"r17\", found {value:?}"
        ),
    };
    let text = value.to_str().map_err(|_| malformed())?.trim();
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    // A tag that is none of ours is well formed all the same, and matches nothing.
    let revision = |tag: &str| {
        let opaque = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
        let number = opaque.strip_prefix('r').and_then(|it| it.parse().ok());
        Some(number.unwrap_or(0))
    };
    let revisions: Option<Vec<u64>> = text.split(',').map(revision).collect();
    revisions
        .map(|revisions| Some(Tags::Revisions(revisions)))
        .ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(HeaderName, &str)]) -> Result<Precondition, String> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        parse(&headers).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_change_expects_is_read_from_its_headers() {
        for (pairs, expected) in [
            (vec![], Precondition::None),
            (vec![(header::IF_MATCH, "*")], Precondition::Exists),
            (vec![(header::IF_NONE_MATCH, "*")], Precondition::Absent),
            (
                vec![(header::IF_MATCH, "\"r3\", \"r17\"")],
                Precondition::Revision(vec![3, 17]),
            ),
            (
                vec![(header::IF_MATCH, "\"other\"")],
                Precondition::Revision(vec![0]),
            ),
        ] {
            assert_eq!(parsed(&pairs), Ok(expected), "{pairs:?}");
        }
    }

    #[test]
    fn a_header_of_another_form_is_refused_by_name() {
        for (name, value) in [
            (header::IF_MATCH, "r17"),
            (header::IF_MATCH, ""),
            (header::IF_MATCH, "\"r1\",r2"),
            (header::IF_NONE_MATCH, "\"r1\""),
        ] {
            let refused = parsed(&[(name.clone(), value)]).unwrap_err();
            assert!(refused.contains(name.as_str()), "{refused}");
        }
        let both = [(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")];
        assert!(parsed(&both).unwrap_err().contains("both"));
    }
}
