//! A door from the machine's own network into a namespace: forwards TCP connections.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// More connections than the few browsers of a lab open.
const MOST: usize = 128;

/// Listens for [`forward`].
///
/// # Errors
/// Nothing can listen there.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .with_context(|| format!("listening on {address}; is another lab or program there?"))
}

/// Forwards connections to `target` in the namespace, until the process ends.
pub fn forward(listener: TcpListener, namespace: &Namespace, target: SocketAddr) {
    let namespace = namespace.clone();
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = match client {
                Ok(client) => client,
                Err(error) => {
                    eprintln!("isopath-lab: accepting a connection: {error}");
                    // Such as too many open files: the next try would fail at once, too.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if open.load(Ordering::Relaxed) >= MOST {
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            let (namespace, open) = (namespace.clone(), open.clone());
            std::thread::spawn(move || {
                if let Err(error) = join(&client, &namespace, target) {
                    eprintln!("isopath-lab: forwarding to {target}: {error:#}");
                }
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// Carries bytes both ways until both sides are done.
fn join(client: &TcpStream, namespace: &Namespace, target: SocketAddr) -> Result<()> {
    let limit = Duration::from_secs(10);
    let server = namespace.enter(|| TcpStream::connect_timeout(&target, limit))?;
    let server = server.context("connecting")?;
    std::thread::scope(|scope| {
        scope.spawn(|| carry(client, &server));
        carry(&server, client);
    });
    Ok(())
}

/// Carries bytes one way. A connection that breaks is no failure of the lab's: both sides are
/// told, nobody else.
fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    let how = match io::copy(&mut from, &mut to) {
        Ok(_) => Shutdown::Write,
        Err(_) => Shutdown::Both,
    };
    // A stream that was shut down already is what is wanted, too.
    drop(to.shutdown(how));
}
