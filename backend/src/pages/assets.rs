//! The style sheet, the script and the icon: part of the binary, named by their content so
//! that a browser may keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// The names under which the assets are served, for the templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assets {
    pub(crate) css: String,
    pub(crate) js: String,
    pub(crate) icon: String,
}

/// A file of `web/assets/`.
struct File {
    media_type: &'static str,
    content: &'static [u8],
}

const CSS: File = File {
    media_type: "text/css; charset=utf-8",
    content: include_bytes!("../../../web/assets/app.css"),
};
const JS: File = File {
    media_type: "text/javascript; charset=utf-8",
    content: include_bytes!("../../../web/assets/app.js"),
};
const ICON: File = File {
    media_type: "image/svg+xml",
    content: include_bytes!("../../../web/assets/icon.svg"),
};

static NAMES: LazyLock<Assets> = LazyLock::new(|| Assets {
    css: CSS.name("app", "css"),
    js: JS.name("app", "js"),
    icon: ICON.name("icon", "svg"),
});

/// The assets' names.
pub(crate) fn names() -> &'static Assets {
    &NAMES
}

impl File {
    /// Such as `app.1f0c…d2.css`: 64 bits of the content's SHA-256 between stem and extension.
    fn name(&self, stem: &str, extension: &str) -> String {
        let digest = Sha256::digest(self.content);
        let hash: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        format!("{stem}.{hash}.{extension}")
    }
}

/// `GET /assets/{name}`.
pub(super) async fn get(Path(name): Path<String>) -> Response {
    let names = names();
    let file = match name {
        name if name == names.css => CSS,
        name if name == names.js => JS,
        name if name == names.icon => ICON,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, file.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, file.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_asset_is_served_by_the_name_its_content_gives_it() {
        for (name, media_type) in [
            (&names().css, "text/css; charset=utf-8"),
            (&names().js, "text/javascript; charset=utf-8"),
            (&names().icon, "image/svg+xml"),
        ] {
            let response = get(Path(name.clone())).await;
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], media_type);
        }
        let old = get(Path("app.0000000000000000.css".to_owned())).await;
        assert_eq!(old.status(), StatusCode::NOT_FOUND, "the hash is looked at");
    }
}
