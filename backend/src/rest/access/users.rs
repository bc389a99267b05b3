//! People who may sign in.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::access::{
    LONGEST_PASSWORD, MadeUser, NewUser, PasswordChange, Role, SHORTEST_PASSWORD, UserChange,
    UserView,
};
use isopath_api::fault::Fault;
use sqlx::SqliteConnection;

use super::super::body::JsonBody;
use super::super::openapi::{Changes, Reads};
use super::super::path::Query;
use super::{Named, PageQuery, check_name};
use crate::app::App;
use crate::auth::{Admin, By, Known, Via, Viewer, generate_password};
use crate::error::Error;
use crate::store::audit::{self, Entry};
use crate::store::users::UserRow;
use crate::store::{sessions, users};

fn view_of(row: UserRow) -> UserView {
    UserView {
        name: row.name,
        role: row.role,
        disabled: row.disabled,
        made: row.made,
    }
}

/// `GET /users`, by name.
#[utoipa::path(
    get,
    path = "/users",
    tag = "access",
    params(PageQuery),
    responses((status = 200, description = "Everyone who may sign in, by name", body = Vec<UserView>), Reads)
)]
pub(super) async fn list(
    _: Admin,
    Query(query): Query<PageQuery>,
    State(app): State<App>,
) -> Result<Json<Vec<UserView>>, Error> {
    let mut reader = app.store().read().await?;
    let found = users::page(&mut reader, query.after()?, query.limit()?).await?;
    Ok(Json(found.into_iter().map(view_of).collect()))
}

/// `GET /users/{name}`
#[utoipa::path(
    get,
    path = "/users/{name}",
    tag = "access",
    params(("name" = String, Path, description = "Their name", max_length = 64)),
    responses((status = 200, description = "Someone who may sign in", body = UserView), Reads)
)]
pub(super) async fn view(
    _: Admin,
    Named(name): Named,
    State(app): State<App>,
) -> Result<Json<UserView>, Error> {
    let mut reader = app.store().read().await?;
    find(&mut reader, &name).await.map(|row| Json(view_of(row)))
}

async fn find(connection: &mut SqliteConnection, name: &str) -> Result<UserRow, Error> {
    users::find(connection, name)
        .await?
        .ok_or_else(|| Error::not_found(format_args!("user {name:?}")))
}

/// `POST /users`
#[utoipa::path(
    post,
    path = "/users",
    tag = "access",
    request_body = NewUser,
    responses((status = 201, description = "The user was made", body = MadeUser), Changes)
)]
pub(super) async fn create(
    Admin(principal): Admin,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let new: NewUser = body.parse(|new: &NewUser| {
        let password = new.password.as_deref();
        check_name(&new.name)
            .into_iter()
            .chain(password.and_then(|text| check_password("/password", text)))
            .collect()
    })?;
    let made = new.password.is_none().then(generate_password);
    let password = new.password.or(made.clone()).unwrap_or_default();
    let hash = app.login_state().hash(password).await?;
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    if !users::insert(&mut transaction, &new.name, new.role, &hash, now).await? {
        let detail = format!("there is a user called {:?} already", new.name);
        return Err(Error::conflict(detail));
    }
    let (object, detail) = (format!("user {}", new.name), format!("role {}", new.role));
    let entry = Entry::done("user.create", &object, &detail);
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    let location = format!("/api/v1/users/{}", new.name);
    let body = MadeUser {
        user: UserView {
            name: new.name,
            role: new.role,
            disabled: false,
            made: now,
        },
        password: made,
    };
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

fn check_password(pointer: &str, password: &str) -> Option<Fault> {
    let found = password.chars().count();
    let expected = format!("{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters");
    (!(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&found))
        .then(|| Fault::new(pointer, expected, format_args!("{found}")))
}

/// `PATCH /users/{name}`: their sessions end.
#[utoipa::path(
    patch,
    path = "/users/{name}",
    tag = "access",
    params(("name" = String, Path, description = "Their name", max_length = 64)),
    request_body = UserChange,
    responses((status = 200, description = "The user as changed; their sessions have ended", body = UserView), Changes)
)]
pub(super) async fn change(
    Admin(principal): Admin,
    Named(name): Named,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Json<UserView>, Error> {
    let change: UserChange = body.parse(|change: &UserChange| {
        let password = change.password.as_deref();
        let fault = password.and_then(|text| check_password("/password", text));
        fault.into_iter().collect()
    })?;
    let hash = match change.password {
        Some(password) => Some(app.login_state().hash(password).await?),
        None => None,
    };
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    let before = find(&mut transaction, &name).await?;
    let after = UserRow {
        role: change.role.unwrap_or(before.role),
        disabled: change.disabled.unwrap_or(before.disabled),
        ..before.clone()
    };
    users::set(&mut transaction, &name, after.role, after.disabled).await?;
    if let Some(hash) = &hash {
        users::set_password(&mut transaction, &name, hash).await?;
    }
    keep_an_admin(&mut transaction).await?;
    let ended = sessions::delete_of(&mut transaction, &name).await?;
    let (object, detail) = (
        format!("user {name}"),
        said(&before, &after, hash.is_some(), ended),
    );
    let entry = Entry::done("user.change", &object, &detail);
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    Ok(Json(view_of(after)))
}

/// What a change of someone was, for the audit log.
fn said(before: &UserRow, after: &UserRow, password: bool, ended: u64) -> String {
    let mut said = Vec::new();
    if before.role != after.role {
        said.push(format!("role {} instead of {}", after.role, before.role));
    }
    match (before.disabled, after.disabled) {
        (false, true) => said.push("disabled".to_owned()),
        (true, false) => said.push("enabled".to_owned()),
        (true, true) | (false, false) => {}
    }
    if password {
        said.push("new password".to_owned());
    }
    said.push(format!("{ended} session(s) ended"));
    said.join(", ")
}

/// Refuses a change after which nobody could decide any more who may do what.
async fn keep_an_admin(connection: &mut SqliteConnection) -> Result<(), Error> {
    if users::admins(connection).await? > 0 {
        Ok(())
    } else {
        let role = Role::Admin;
        Err(Error::conflict(format!(
            "nobody else with the role {role} could sign in: make somebody {role} first"
        )))
    }
}

/// `DELETE /users/{name}`: their sessions end.
#[utoipa::path(
    delete,
    path = "/users/{name}",
    tag = "access",
    params(("name" = String, Path, description = "Their name", max_length = 64)),
    responses((status = 204, description = "The user is no more; their sessions have ended"), Changes)
)]
pub(super) async fn delete(
    Admin(principal): Admin,
    Named(name): Named,
    State(app): State<App>,
) -> Result<StatusCode, Error> {
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    find(&mut transaction, &name).await?;
    users::delete(&mut transaction, &name).await?;
    keep_an_admin(&mut transaction).await?;
    let object = format!("user {name}");
    let entry = Entry::done("user.delete", &object, "");
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /users/me/password`: every session ends but a new one, whose cookie is in the answer.
#[utoipa::path(
    post,
    path = "/users/me/password",
    tag = "access",
    request_body = PasswordChange,
    responses((status = 204, description = "The password is another one; all other sessions have ended"), Changes)
)]
pub(super) async fn password(
    Viewer(principal): Viewer,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let by = principal.by();
    if by.via != Via::Session {
        return Err(Error::Forbidden {
            detail: "a token has no password; sign in to change yours".to_owned(),
        });
    }
    let change: PasswordChange = body.parse(|change: &PasswordChange| {
        check_password("/new", &change.new).into_iter().collect()
    })?;
    let login = app.login_state();
    let now = app.clock().now();
    let before = login
        .check(app.store(), now, &by.name, &change.old)
        .await
        .map_err(|error| match error {
            Error::Unauthenticated { .. } => Error::Forbidden {
                detail: "the present password is another one".to_owned(),
            },
            other => other,
        })?;
    let hash = login.hash(change.new).await?;
    let known = Known {
        user: &by.name,
        hash: &before,
    };
    let cookie = renew(&app, &by, known, &hash).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Replaces the password that was checked, unless that is another one by now: what an admin has
/// set meanwhile stays.
async fn renew(
    app: &App,
    by: &By,
    before: Known<'_>,
    hash: &str,
) -> Result<axum::http::HeaderValue, Error> {
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    if !users::has_password(&mut transaction, before.user, before.hash).await? {
        return Err(Error::Busy);
    }
    users::set_password(&mut transaction, &by.name, hash).await?;
    let ended = sessions::delete_of(&mut transaction, &by.name).await?;
    let cookie = app.start_session(&mut transaction, by, now).await?;
    let (object, detail) = (
        format!("user {}", by.name),
        format!("{ended} session(s) ended"),
    );
    let entry = Entry::done("user.password", &object, &detail);
    audit::insert(&mut transaction, by, entry, now).await?;
    transaction.commit().await?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash_password;
    use crate::testing::Server;

    #[tokio::test]
    async fn a_password_that_an_admin_sets_meanwhile_stays() {
        let server = Server::start().await;
        let (app, now) = (&server.app, server.app.clock().now().wall);
        let hashes = [
            "the first password",
            "what the admin set",
            "what ada wanted",
        ];
        let [first, reset, wanted] = hashes.map(|text| hash_password(text).unwrap());
        let mut transaction = app.store().begin().await.unwrap();
        let made = users::insert(&mut transaction, "ada", Role::Admin, &first, now).await;
        assert!(made.unwrap());
        transaction.commit().await.unwrap();
        let by = By {
            name: "ada".to_owned(),
            ..By::command()
        };
        let checked = Known {
            user: "ada",
            hash: &first,
        };
        let mut transaction = app.store().begin().await.unwrap();
        users::set_password(&mut transaction, "ada", &reset)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let refused = renew(app, &by, checked, &wanted).await.unwrap_err();
        assert!(matches!(refused, Error::Busy), "{refused}");
        let mut reader = app.store().read().await.unwrap();
        let stored = users::password_hash(&mut reader, "ada").await.unwrap();
        assert_eq!(stored.as_deref(), Some(reset.as_str()));
        let sessions = sessions::page(&mut reader, "", 10).await.unwrap();
        assert_eq!(sessions, []);
    }
}
