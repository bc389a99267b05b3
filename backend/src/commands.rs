//! What `isopathd` does, once it knows what it is asked.

use std::future::IntoFuture;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::ListenerExt;
use isopath_api::fault::FileFaults;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::{PasswordError, generate_password, hash_password, new_token, token_hash};
use crate::clock::Clock;
use crate::error::Error;
use crate::settings::Settings;
use crate::store::tokens::{Role, TokenRow};
use crate::store::{OpenError, ServeLock, Store, tokens, users};

/// How long requests under way may take when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] FileFaults),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Open(#[from] OpenError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The controller cannot start.
    #[error("cannot start")]
    Start(#[source] Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server failed.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
    /// The task that owns the state ended although nobody asked it to.
    #[error("the controller's own task ended; the log says why")]
    Lost,
    /// The password is not one that is taken.
    #[error("{0}")]
    Password(#[from] PasswordError),
    /// The name is taken.
    #[error("there is a {what} called {name:?} already")]
    Exists {
        /// A user or a token.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is none.
    #[error("expected a name of 1 to 64 visible characters, found {found:?}")]
    Name {
        /// What was given.
        found: String,
    },
}

impl CommandError {
    /// Whether the caller gave something wrong, rather than something having failed.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Config(_) | Self::Password(_) | Self::Name { .. } => true,
            Self::Open(OpenError::Url { .. }) => true,
            Self::Open(_)
            | Self::Database(_)
            | Self::Start(_)
            | Self::Listen { .. }
            | Self::Serve(_)
            | Self::Lost
            | Self::Exists { .. } => false,
        }
    }
}

/// Reads the file of `--config`; the defaults where none is given.
///
/// # Errors
/// Every fault of the file with its line and column.
pub fn read_settings(path: Option<&Path>) -> Result<Settings, CommandError> {
    let Some(path) = path else {
        return Ok(Settings::default());
    };
    let text = std::fs::read_to_string(path).map_err(|source| CommandError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Settings::parse(&path.display().to_string(), &text)?)
}

/// `isopathd serve`: until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, and when it ends although nobody asked it to.
pub async fn serve(
    listen: SocketAddr,
    database: &str,
    mut out: impl Write,
) -> Result<(), CommandError> {
    // Before anything else: once it says that it listens, it can be told to stop.
    let told = Told::listen().map_err(CommandError::Serve)?;
    let lock = ServeLock::take(database)?;
    let store = Store::open(database).await?;
    if let Some(password) = first_user(&store).await? {
        let greeting = format!(
            "Made the first user. Sign in as admin with this password, shown only now: {password}\n"
        );
        // Who has closed the output cannot read it; `user create` makes another user.
        if let Err(error) = out
            .write_all(greeting.as_bytes())
            .and_then(|()| out.flush())
        {
            tracing::warn!(%error, "cannot show the first user's password");
        }
    }
    let shutdown = CancellationToken::new();
    let (app, task) = App::start(store.clone(), Clock::default(), shutdown.clone())
        .await
        .map_err(CommandError::Start)?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| CommandError::Listen {
            address: listen,
            source,
        })?;
    announce(&listener, listen);
    // An event of a stream is a few small writes: none may wait for an acknowledgement.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let service = crate::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let server =
        axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let ended = run_until_told(told, shutdown, server, task).await;
    store.close().await;
    drop(lock);
    ended
}

/// The signals that end the server.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Waits for a signal, or for either task to end, and then for what is under way.
async fn run_until_told(
    mut told: Told,
    shutdown: CancellationToken,
    mut server: tokio::task::JoinHandle<io::Result<()>>,
    mut task: tokio::task::JoinHandle<()>,
) -> Result<(), CommandError> {
    // Signals stay due and the handles may be polled again: all four are cancel-safe.
    let ended = tokio::select! {
        _ = told.terminate.recv() => Ok(()),
        _ = told.interrupt.recv() => Ok(()),
        ended = &mut server => match ended {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(CommandError::Serve(error)),
            Err(error) => return Err(CommandError::Serve(io::Error::other(error))),
        },
        _ = &mut task => Err(CommandError::Lost),
    };
    tracing::info!("stopping");
    shutdown.cancel();
    match tokio::time::timeout(STOP_WITHIN, server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return Err(CommandError::Serve(error)),
        Ok(Err(error)) => return Err(CommandError::Serve(io::Error::other(error))),
        Err(_) => tracing::warn!("requests under way were cut off"),
    }
    ended
}

fn announce(listener: &TcpListener, wanted: SocketAddr) {
    let address = listener.local_addr().unwrap_or(wanted);
    tracing::info!("listening on http://{address}");
    if !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is not a loopback address and there is no TLS: passwords and tokens can \
             be read on the way; put a TLS proxy before it"
        );
    }
}

/// Makes the user `admin` where there is no user: its password.
async fn first_user(store: &Store) -> Result<Option<String>, CommandError> {
    let mut transaction = store.begin().await?;
    if users::any(&mut transaction).await? {
        return Ok(None);
    }
    let password = generate_password();
    let hash = hash_password(&password)?;
    users::insert(&mut transaction, "admin", &hash, Timestamp::now()).await?;
    transaction.commit().await?;
    Ok(Some(password))
}

/// `isopathd user create`: the password, where it was generated here.
///
/// # Errors
/// When the name is taken or the password is not one that is taken.
pub async fn create_user(
    database: &str,
    name: &str,
    password_file: Option<&Path>,
) -> Result<Option<String>, CommandError> {
    check_name(name)?;
    let (password, generated) = match password_file {
        Some(path) => (read_password(path)?, false),
        None => (generate_password(), true),
    };
    let hash = hash_password(&password)?;
    let store = Store::open(database).await?;
    let mut transaction = store.begin().await?;
    let made = users::insert(&mut transaction, name, &hash, Timestamp::now()).await?;
    transaction.commit().await?;
    store.close().await;
    if made {
        Ok(generated.then_some(password))
    } else {
        Err(CommandError::Exists {
            what: "user",
            name: name.to_owned(),
        })
    }
}

/// `isopathd token create`: the token.
///
/// # Errors
/// When the name is taken.
pub async fn create_token(database: &str, name: &str, role: Role) -> Result<String, CommandError> {
    check_name(name)?;
    let token = new_token(&role);
    let row = TokenRow {
        name: name.to_owned(),
        role,
    };
    let store = Store::open(database).await?;
    let mut transaction = store.begin().await?;
    let made = tokens::insert(
        &mut transaction,
        &token_hash(&token),
        &row,
        Timestamp::now(),
    )
    .await?;
    transaction.commit().await?;
    store.close().await;
    if made {
        Ok(token)
    } else {
        Err(CommandError::Exists {
            what: "token",
            name: name.to_owned(),
        })
    }
}

fn check_name(name: &str) -> Result<(), CommandError> {
    let is_visible = |c: char| !c.is_whitespace() && !c.is_control();
    if (1..=64).contains(&name.len()) && name.chars().all(is_visible) {
        Ok(())
    } else {
        Err(CommandError::Name {
            found: name.to_owned(),
        })
    }
}

/// The first line of a file.
fn read_password(path: &Path) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|source| CommandError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
