//! What `isopathd` does, once it knows what it is asked.

mod access;
pub mod database;
mod fleet;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::access::NAME_EXPECTED;
use isopath_api::fault::FileFaults;
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::PasswordError;
use crate::clock::Clock;
use crate::connections;
use crate::error::Error;
use crate::files::FileError;
use crate::retention;
use crate::settings::Settings;
use crate::store::{OpenError, ServeLock, Store, WriteError};
use crate::tls::{
    self, Authority, PlainListener, ServerCertificate, TlsError, TlsListener, TlsServed,
};

pub use access::{create_token, create_user};
pub use fleet::create_enroll_token;

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
    /// A file cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] FileFaults),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Open(#[from] OpenError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Nothing could be written.
    #[error("cannot write to the database")]
    Write(#[from] WriteError),
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
    /// Passwords and tokens would go over a network in the clear.
    #[error(
        "{address} is not a loopback address and there is no TLS: set [tls] own_ca = true (or \
         `certificate` and `key`) in the file of --config, or accept with --insecure-http that \
         passwords and tokens can be read on the way"
    )]
    Insecure {
        /// The address.
        address: SocketAddr,
    },
    /// Agents need TLS to show a certificate.
    #[error(
        "agents enrol with a controller that is served with TLS: name the file with its [tls] by \
         --config"
    )]
    NoTls,
    /// TLS cannot be served.
    #[error("cannot serve TLS")]
    Tls(#[from] TlsError),
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
    /// The token would be good for longer than there is time.
    #[error("expected a time until the year 9999 at most")]
    Expires,
    /// The name is none.
    #[error("expected {NAME_EXPECTED}, found {found:?}")]
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
            Self::Expires => true,
            Self::Open(OpenError::Url { .. }) | Self::Insecure { .. } | Self::NoTls => true,
            Self::Open(_)
            | Self::File(_)
            | Self::Database(_)
            | Self::Write(_)
            | Self::Start(_)
            | Self::Listen { .. }
            | Self::Tls(_)
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
pub async fn serve(settings: &Settings, out: impl Write) -> Result<(), CommandError> {
    let (listen, database) = (settings.listen(), settings.database());
    if settings.tls.is_none() && !listen.ip().is_loopback() && !settings.insecure_http {
        return Err(CommandError::Insecure { address: listen });
    }
    // Before anything else: once it says that it listens, it can be told to stop.
    let told = Told::listen().map_err(CommandError::Serve)?;
    raise_open_files();
    let lock = ServeLock::take(database)?;
    let store = Store::open_checked(database).await?;
    let password_file = settings.admin_password_file.as_deref();
    access::first_user(&store, password_file, out).await?;
    let shutdown = CancellationToken::new();
    let clock = Clock::default();
    let tls = prepare_tls(settings, clock.now().wall, &shutdown)?;
    let served = tls.as_ref().map(|(_, served)| served.clone());
    let retention = retention::run(
        store.clone(),
        clock.clone(),
        settings.retention.clone(),
        shutdown.clone(),
    );
    let (app, task) = App::start_with(
        store.clone(),
        clock,
        served,
        settings.limits,
        shutdown.clone(),
    )
    .await
    .map_err(CommandError::Start)?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| CommandError::Listen {
            address: listen,
            source,
        })?;
    tokio::spawn(retention);
    announce(&listener, listen, tls.is_some());
    let router = crate::router(app);
    let (limits, told_to_end) = (settings.limits, shutdown.clone());
    let server = match tls {
        None => {
            let listener = PlainListener(listener);
            tokio::spawn(connections::serve(listener, router, limits, told_to_end))
        }
        Some((config, _)) => {
            let listener = TlsListener::new(listener, config).map_err(CommandError::Serve)?;
            tokio::spawn(connections::serve(listener, router, limits, told_to_end))
        }
    };
    let ended = run_until_told(told, shutdown, server, task).await;
    store.close().await;
    drop(lock);
    ended
}

/// What TLS is served with, where the settings want it; starts what keeps the certificate good.
fn prepare_tls(
    settings: &Settings,
    now: Timestamp,
    shutdown: &CancellationToken,
) -> Result<Option<(Arc<ServerConfig>, TlsServed)>, CommandError> {
    let Some(tls) = &settings.tls else {
        return Ok(None);
    };
    let directory = tls_directory(settings)?;
    let authority = Arc::new(Authority::load_or_make(&directory, now)?);
    let (certificate, renewal) = ServerCertificate::load(
        tls,
        Arc::clone(&authority),
        &directory,
        settings.listen().ip(),
        now,
    )?;
    let config = tls::server_config(&authority, &certificate)?;
    tokio::spawn(renewal.run(shutdown.clone()));
    let served = TlsServed {
        authority,
        certificate,
        own_certificate: tls.own_ca,
        require_client_certificates: tls.require_client_certificates,
    };
    Ok(Some((config, served)))
}

/// Where the authority's key is kept.
fn tls_directory(settings: &Settings) -> Result<PathBuf, CommandError> {
    match settings.tls.as_ref().and_then(|tls| tls.directory.clone()) {
        Some(directory) => Ok(directory),
        None => {
            let database = crate::store::file_of(settings.database())?;
            let beside = database.parent().unwrap_or(Path::new(""));
            Ok(beside.join("tls"))
        }
    }
}

/// Lets this process have as many open files as it may: each agent holds two connections, and a
/// shell's usual limit is 1,024.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
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
    // What was measured last is still to be stored.
    if ended.is_ok() && tokio::time::timeout(STOP_WITHIN, task).await.is_err() {
        tracing::warn!("the last measurements were not stored");
    }
    ended
}

fn announce(listener: &TcpListener, wanted: SocketAddr, tls: bool) {
    let address = listener.local_addr().unwrap_or(wanted);
    let scheme = if tls { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{address}");
    if !tls && !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is not a loopback address and there is no TLS: passwords and tokens can \
             be read on the way"
        );
    }
}
