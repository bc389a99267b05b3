//! Who asks, and what they may do: tokens for programs, passwords and sessions for people.

mod agent;
mod by;
pub(crate) mod certificate;
mod form;
mod known;
mod limits;
mod login;
mod password;
mod places;
mod principal;
mod rate;
mod secret;
mod session;
mod token;

pub use agent::Agent;
pub use by::{By, Via};
pub(crate) use form::check_form;
pub use form::check_origin;
pub(crate) use known::KnownTokens;
pub use limits::LimitSettings;
pub(crate) use limits::Limits;
pub use login::Login;
pub(crate) use login::{Known, SignIn};
pub use password::{PasswordError, generate_password, hash_password};
pub(crate) use places::{Place, Places};
pub use principal::{Admin, Operator, Principal, Viewer};
pub(crate) use rate::{Buckets, counted_as};
pub(crate) use secret::sha256_hex;
pub use session::{COOKIE, Session, SessionSecret, TLS_COOKIE};
pub(crate) use session::{end as end_session, find as find_session, start as start_session};
pub use token::{TokenError, TokenKind, check_token, new_token, token_hash};
