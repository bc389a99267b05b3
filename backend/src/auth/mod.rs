//! Who asks, and what they may do: tokens for programs, passwords and sessions for people.

mod form;
mod login;
mod password;
mod rate;
mod secret;
mod session;
mod token;

pub(crate) use form::check_form;
pub use form::check_origin;
pub use login::Login;
pub use password::{PasswordError, generate_password, hash_password};
pub use session::{COOKIE, Session, SessionSecret};
pub(crate) use session::{end as end_session, find as find_session};
pub use token::{Agent, Operator, new_token, token_hash};
