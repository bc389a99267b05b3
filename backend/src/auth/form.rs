//! Forms that another site posts in a signed-in person's name.

use axum::http::{HeaderMap, header};

use super::Session;
use super::secret::same;
use crate::error::Error;

/// Refuses a request that the browser says another site started.
///
/// Browsers send `Sec-Fetch-Site` over HTTPS and to loopback, and `Origin` with every POST.
/// A client that sends neither is no browser of today; its cookie is `SameSite=Strict` and a
/// form wants the session's token besides.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn check_origin(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same_site = match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin
            .split_once("://")
            .is_some_and(|(_, host)| Some(host) == text(header::HOST.as_str())),
        (None, None) => true,
    };
    if same_site {
        Ok(())
    } else {
        Err(Error::Forbidden {
            detail: "the form was sent by another site".to_owned(),
        })
    }
}

/// Refuses a form that another site sent or that lacks the session's token.
pub(crate) fn check_form(headers: &HeaderMap, session: &Session, token: &str) -> Result<(), Error> {
    check_origin(headers)?;
    if same(token, session.csrf_token()) {
        Ok(())
    } else {
        Err(Error::Forbidden {
            detail: "the form is not from this session; load the page again".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use isopath_api::access::Role;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_our_own_origin_may_post() {
        let host = ("host", "127.0.0.1:8080");
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://127.0.0.1:8080")], true),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
        ];
        for (pairs, allowed) in cases {
            let mut headers = headers(&[host]);
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(check_origin(&headers).is_ok(), allowed, "{pairs:?}");
        }
    }

    #[test]
    fn a_form_carries_its_own_sessions_token() {
        let secret = super::super::SessionSecret::generate();
        let session = Session::new("ada".to_owned(), Role::Operator, &secret);
        let other = super::super::SessionSecret::generate();
        let other = Session::new("ada".to_owned(), Role::Operator, &other);
        let headers = headers(&[]);
        assert!(check_form(&headers, &session, session.csrf_token()).is_ok());
        for wrong in ["", other.csrf_token()] {
            let error = check_form(&headers, &session, wrong).unwrap_err();
            assert!(
                error.to_string().contains("not from this session"),
                "{error}"
            );
        }
    }
}
