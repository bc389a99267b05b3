//! `isopath user` and `isopath token`: who may use the controller.

use std::path::Path;

use isopath_api::access::{
    MadeToken, MadeUser, NewToken, NewUser, TokenRole, TokenView, UserChange, UserView,
};
use jiff::Timestamp;
use reqwest::Method;

use super::{print, print_json};
use crate::args::{Args, TokenVerb, UserVerb};
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::{Column, Table};

/// As many as one answer has.
const PAGE: usize = 200;

pub(super) fn user(args: &Args, verb: &UserVerb) -> Result<(), Failure> {
    let controller = Controller::new(&args.target)?;
    match verb {
        UserVerb::List => list_users(args, &controller),
        UserVerb::Create {
            name,
            role,
            password_file,
        } => {
            let new = NewUser {
                name: name.clone(),
                role: *role,
                password: password_file.as_deref().map(first_line).transpose()?,
            };
            let made: MadeUser = controller.send(Method::POST, "/users", Some(&new))?;
            if let Some(password) = made.password {
                eprintln!("Made {name}. The password is shown only now:");
                print(&format!("{password}\n"))?;
            }
            Ok(())
        }
        UserVerb::Set {
            name,
            role,
            disable,
            enable,
            password_file,
        } => {
            let change = UserChange {
                role: *role,
                disabled: match (disable, enable) {
                    (true, _) => Some(true),
                    (false, true) => Some(false),
                    (false, false) => None,
                },
                password: password_file.as_deref().map(first_line).transpose()?,
            };
            let path = format!("/users/{name}");
            let user: UserView = controller.send(Method::PATCH, &path, Some(&change))?;
            eprintln!("{} is {}{}.", user.name, user.role, disabled(&user));
            Ok(())
        }
        UserVerb::Delete { name } => {
            controller.send::<(), ()>(Method::DELETE, &format!("/users/{name}"), None)
        }
    }
}

fn disabled(user: &UserView) -> &'static str {
    if user.disabled { ", disabled" } else { "" }
}

fn list_users(args: &Args, controller: &Controller) -> Result<(), Failure> {
    let users = all(controller, "/users", |user: &UserView| user.name.clone())?;
    if args.json {
        return print_json("isopath.users/1", "users", &users);
    }
    let columns = ["NAME", "ROLE", "STATE", "MADE"].map(Column::Left);
    let mut table = Table::new(columns.into());
    for user in users {
        let state = if user.disabled { "disabled" } else { "" };
        let role = user.role.to_string();
        table.row([user.name, role, state.to_owned(), day(Some(user.made))]);
    }
    print(&table.render())
}

pub(super) fn token(args: &Args, verb: &TokenVerb) -> Result<(), Failure> {
    let controller = Controller::new(&args.target)?;
    match verb {
        TokenVerb::List => list_tokens(args, &controller),
        TokenVerb::Create {
            name,
            role,
            only,
            expires_days,
        } => {
            let new = NewToken {
                name: name.clone(),
                role: (*role).into(),
                clusters: (!only.is_empty()).then(|| only.iter().cloned().collect()),
                expires_days: *expires_days,
            };
            let made: MadeToken = controller.send(Method::POST, "/tokens", Some(&new))?;
            eprintln!("Made {name}. The token is shown only now:");
            print(&format!("{}\n", made.token))
        }
        TokenVerb::Revoke { name } => {
            controller.send::<(), ()>(Method::DELETE, &format!("/tokens/{name}"), None)
        }
    }
}

fn list_tokens(args: &Args, controller: &Controller) -> Result<(), Failure> {
    let tokens = all(controller, "/tokens", |token: &TokenView| {
        token.name.clone()
    })?;
    if args.json {
        return print_json("isopath.tokens/1", "tokens", &tokens);
    }
    let columns = [
        "NAME", "ROLE", "CLUSTERS", "MADE BY", "EXPIRES", "USED", "STATE",
    ];
    let mut table = Table::new(columns.map(Column::Left).into());
    for token in tokens {
        let clusters = token.clusters.map_or("all".to_owned(), |clusters| {
            let names: Vec<_> = clusters.iter().map(ToString::to_string).collect();
            names.join(",")
        });
        let role = match token.role {
            TokenRole::Viewer => "viewer",
            TokenRole::Operator => "operator",
            TokenRole::Admin => "admin",
            TokenRole::Agent => "agent",
        };
        let state = if token.revoked.is_some() {
            "revoked"
        } else {
            ""
        };
        table.row([
            token.name,
            role.to_owned(),
            clusters,
            token.made_by,
            day(token.expires),
            day(token.used),
            state.to_owned(),
        ]);
    }
    print(&table.render())
}

fn day(at: Option<Timestamp>) -> String {
    let text = at.map_or("-".to_owned(), |at| at.to_string());
    text.split('T').next().unwrap_or_default().to_owned()
}

/// Every page of a list, each asked for by the last name of the one before.
fn all<T: serde::de::DeserializeOwned>(
    controller: &Controller,
    path: &str,
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, Failure> {
    let mut all: Vec<T> = Vec::new();
    loop {
        // Names need no escaping but for the plus sign, which would be read as a space.
        let after = all
            .last()
            .map(&name)
            .unwrap_or_default()
            .replace('+', "%2B");
        let page: Vec<T> = controller.get(&format!("{path}?limit={PAGE}&after={after}"))?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// The first line of a file: a password is no argument, which every user of the machine sees.
fn first_line(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
