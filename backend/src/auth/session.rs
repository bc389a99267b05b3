//! Signed-in people: the session behind a page's cookie.

/// Someone who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Their name.
    pub user: String,
    csrf_token: String,
}

impl Session {
    /// What every form of a page carries in a hidden field, for [`crate::app::App::check_form`].
    pub fn csrf_token(&self) -> &str {
        &self.csrf_token
    }
}
