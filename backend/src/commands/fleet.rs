//! `isopathd enroll-token`: what an operator on the controller's machine does about agents.

use std::sync::Arc;

use isopath_api::fleet::EnrollToken;
use isopath_api::ids::{ClusterName, DirectorName};
use jiff::Timestamp;

use super::{CommandError, tls_directory};
use crate::auth::{By, TokenKind, new_token, token_hash};
use crate::control::TOKEN_VALIDITY;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::audit::{self, Entry};
use crate::store::enroll_tokens::{self, NewEnrollToken};
use crate::tls::Authority;

/// `isopathd enroll-token create`: the token, while a server runs or not.
///
/// # Errors
/// The controller is not served with TLS, or the database cannot be written to.
pub async fn create_enroll_token(
    settings: &Settings,
    cluster: ClusterName,
    director: DirectorName,
) -> Result<EnrollToken, CommandError> {
    let tls = settings.tls.as_ref().ok_or(CommandError::NoTls)?;
    let now = Timestamp::now();
    // Where the database cannot be used no authority is made either.
    let store = Store::open(settings.database()).await?;
    let authority = Arc::new(Authority::load_or_make(&tls_directory(settings)?, now)?);
    let token = new_token(TokenKind::Enrolment);
    let expires = now.checked_add(TOKEN_VALIDITY).unwrap_or(Timestamp::MAX);
    let by = By::command();
    let row = NewEnrollToken {
        cluster,
        director,
        made_by: by.name.clone(),
        expires,
    };
    let mut transaction = store.begin().await?;
    enroll_tokens::insert(&mut transaction, &token_hash(&token), &row, now).await?;
    let object = format!("director {}", row.director);
    let entry = Entry::done("enroll-token.create", &object, "").of(&row.cluster);
    audit::insert(&mut transaction, &by, entry, now).await?;
    transaction.commit().await?;
    store.close().await;
    Ok(EnrollToken {
        token,
        cluster: row.cluster,
        director: row.director,
        expires_at: expires,
        ca_pin: tls.own_ca.then(|| authority.pin()),
    })
}
