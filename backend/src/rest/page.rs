//! Long lists in pages: `?limit=50&cursor=…`.
//!
//! A cursor is opaque to callers and good for the list and the filters that it came with. The
//! next page's stands in the `Link` header (RFC 8288, `rel="next"`), and there is none at the
//! end; the body is the list alone.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::auth::sha256_hex;
use crate::error::Error;

/// How many items an answer has unless asked for otherwise.
pub(super) const ITEMS: u32 = 50;
/// The most items of one answer.
pub(super) const MOST_ITEMS: u32 = 200;

/// The end of a page: what its last item goes by, bound to what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor<K> {
    last: K,
    asked: String,
}

impl<K: Display + FromStr> Cursor<K> {
    /// The end at the item `last` of the list that `filter` describes in full.
    pub(crate) fn new(last: K, filter: &str) -> Self {
        Self {
            last,
            asked: digest(filter),
        }
    }

    fn text(&self) -> String {
        format!("{}-{}", self.last, self.asked)
    }

    fn parse(text: &str) -> Option<Self> {
        let (last, asked) = text.rsplit_once('-')?;
        Some(Self {
            last: last.parse().ok()?,
            asked: asked.to_owned(),
        })
    }
}

/// Enough to tell filters apart; a forged cursor shows nothing that the filter does not.
fn digest(filter: &str) -> String {
    let mut hash = sha256_hex(&[filter.as_bytes()]);
    hash.truncate(12);
    hash
}

/// What part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<K> {
    limit: u32,
    last: Option<K>,
}

impl<K: Display + FromStr + Clone> Page<K> {
    /// The page of a list that `filter` describes in full.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a limit out of bounds and for a cursor of another list.
    pub(crate) fn new(
        limit: Option<u32>,
        cursor: Option<&str>,
        filter: &str,
    ) -> Result<Self, Error> {
        let limit = limit.unwrap_or(ITEMS);
        if !(1..=MOST_ITEMS).contains(&limit) {
            return Err(Error::BadRequest {
                detail: format!("?limit: expected 1 to {MOST_ITEMS}, found {limit}"),
            });
        }
        let last = match cursor {
            None => None,
            Some(text) => {
                let cursor = Cursor::parse(text).filter(|it| it.asked == digest(filter));
                let cursor = cursor.ok_or_else(|| Error::BadRequest {
                    detail: format!(
                        "?cursor: expected one from this list's Link header with the same \
                         filters, found {text:?}"
                    ),
                })?;
                Some(cursor.last)
            }
        };
        Ok(Self { limit, last })
    }

    /// What the last item of the page before goes by; nothing on the first.
    pub(crate) fn last(&self) -> Option<K> {
        self.last.clone()
    }

    /// How many items to fetch: one more than are shown, which tells whether there are more.
    pub(crate) fn fetch(&self) -> u32 {
        self.limit + 1
    }

    /// The answer with the items that were fetched. `path` and `filters` are those of the
    /// request.
    pub(crate) fn answer<T: Serialize>(
        &self,
        mut items: Vec<T>,
        path: &str,
        filters: &[(&str, String)],
        cursor: impl FnOnce(&T) -> Cursor<K>,
    ) -> Response {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(cursor);
        let mut response = Json(items).into_response();
        if let Some(next) = next {
            let mut target = format!(
                "{path}?limit={}&cursor={}",
                self.limit,
                percent(&next.text())
            );
            for (name, value) in filters {
                target.push_str(&format!("&{name}={}", percent(value)));
            }
            let link = format!("<{target}>; rel=\"next\"");
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3).
fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_alone() {
        let text = Cursor::new(17_u64, "events of edge").text();
        let page = Page::new(Some(5), Some(&text), "events of edge").unwrap();
        assert_eq!(page.last(), Some(17_u64));
        let refused = Page::<u64>::new(Some(5), Some(&text), "events of other").unwrap_err();
        assert!(refused.to_string().contains("?cursor"), "{refused}");
        for bad in ["", "17", "-", "zz-0", "11-"] {
            assert!(Page::<u64>::new(None, Some(bad), "").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_may_go_by_words() {
        let page = Page::new(Some(1), None, "x").unwrap();
        let cursor = |item: &String| Cursor::new(item.clone(), "x");
        let items = vec!["edge/d-1".to_owned(), "edge/d-2".to_owned()];
        let answer = page.answer(items, "/x", &[], cursor);
        let link = answer.headers()[header::LINK].to_str().unwrap();
        assert!(link.contains("cursor=edge%2Fd-1-"), "{link}");
        let text = Cursor::new("edge/d-1".to_owned(), "x").text();
        let next: Page<String> = Page::new(Some(1), Some(&text), "x").unwrap();
        assert_eq!(next.last().as_deref(), Some("edge/d-1"));
    }

    #[test]
    fn a_limit_has_its_bounds() {
        for limit in [0, 201, u32::MAX] {
            assert!(Page::<u64>::new(Some(limit), None, "").is_err(), "{limit}");
        }
        assert_eq!(Page::<u64>::new(None, None, "").unwrap().fetch(), 51);
    }

    #[test]
    fn only_what_has_more_after_it_has_a_next() {
        let page = Page::new(Some(2), None, "x").unwrap();
        let cursor = |item: &u64| Cursor::new(*item, "x");
        let whole = page.answer(vec![9, 8], "/x", &[], cursor);
        assert!(whole.headers().get(header::LINK).is_none());
        let filters = [("text", "a b&c".to_owned())];
        let more = page.answer(vec![9, 8, 7], "/x", &filters, cursor);
        let link = more.headers()[header::LINK].to_str().unwrap();
        let expected = format!(
            "</x?limit=2&cursor={}&text=a%20b%26c>; rel=\"next\"",
            cursor(&8).text()
        );
        assert_eq!(link, expected);
    }
}
