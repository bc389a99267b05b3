//! The connection to the kernel.

use std::net::SocketAddr;
use std::sync::Arc;

use netlink_packet_core::DecodeError;
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use crate::change::Change;
use crate::destination::{Destination, DestinationSpec};
use crate::entries::{DestinationEntry, EntrySocket, Fingerprint, ServiceEntry};
use crate::error::{Cause, Error, Operation};
use crate::message::{self, Command, Info, Timeouts};
use crate::service::{Service, ServiceKey, ServiceSpec};
use crate::socket::{Answer, Failure, Requests, Socket, WINDOW};

/// How many calls may wait for the one that is being worked on. A caller waits for the answer
/// to its own, so that there is one for each task that uses the connection: few.
const WAITING: usize = 8;

/// What the thread works with.
struct Sockets {
    netlink: Socket,
    /// Only quicker, so that its failure is one of who asks for it.
    entries: Result<EntrySocket, Errno>,
}

/// Something to do with the sockets.
type Job = Box<dyn FnOnce(&mut Sockets) + Send>;

/// A connection to IPVS in the network namespace of the thread that opened it.
///
/// The kernel works while it is being called, for as long as it takes, so the calls are made by a
/// thread of its own that ends when the last clone is dropped. Dropping a call's future leaves
/// the connection usable; whether the kernel has done what was asked is then unknown.
#[derive(Debug, Clone)]
pub struct Ipvs {
    jobs: mpsc::Sender<Job>,
    family: u16,
}

impl Ipvs {
    /// Opens a connection and looks the family up, which makes the kernel load the module where
    /// it can.
    ///
    /// # Errors
    /// [`Cause::NoModule`] where the kernel has no IPVS and cannot load it.
    pub async fn connect() -> Result<Self, Error> {
        let failed = |failure| Error::new(Operation::Connect, failure);
        let mut sockets = Sockets {
            netlink: Socket::open().map_err(|errno| failed(Failure::Socket(errno)))?,
            entries: EntrySocket::open(),
        };
        let (jobs, mut queue) = mpsc::channel::<Job>(WAITING);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut sockets);
            }
        };
        let thread = std::thread::Builder::new().name("ipvs".to_owned());
        // It is not joined: it ends by itself, and nothing depends on when.
        thread.spawn(work).map_err(|error| Error {
            operation: Operation::Connect,
            cause: Cause::Socket(error),
            errno: None,
        })?;
        let mut ipvs = Self { jobs, family: 0 };
        let ask = message::get_family();
        let family = ipvs.one(ask, Operation::Connect, message::family_number);
        ipvs.family = family.await?;
        Ok(ipvs)
    }

    /// Reads the version of IPVS.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn info(&self) -> Result<Info, Error> {
        let request = message::request(self.family, Command::GetInfo);
        self.one(request, Operation::ReadInfo, message::info).await
    }

    /// Reads the timeouts.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn timeouts(&self) -> Result<Timeouts, Error> {
        let request = message::request(self.family, Command::GetConfig);
        self.one(request, Operation::ReadTimeouts, message::timeouts)
            .await
    }

    /// Writes the timeouts.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn set_timeouts(&self, timeouts: Timeouts) -> Result<(), Error> {
        let request = message::set_timeouts(self.family, timeouts);
        self.tell(request, Operation::SetTimeouts).await
    }

    /// Zeroes the counters of everything, also the totals.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn zero(&self) -> Result<(), Error> {
        let request = message::request(self.family, Command::Zero);
        self.tell(request, Operation::Zero).await
    }

    /// Deletes all services and their destinations.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn flush(&self) -> Result<(), Error> {
        let request = message::request(self.family, Command::Flush);
        self.tell(request, Operation::Flush).await
    }

    /// Reads all services, also those by firewall mark.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        let family = self.family;
        let read = move |socket: &mut Socket| services(socket, family);
        self.call(Operation::ListServices, read).await
    }

    /// Reads one service.
    ///
    /// # Errors
    /// [`Cause::NoService`] and others.
    pub async fn service(&self, key: &ServiceKey) -> Result<Service, Error> {
        let request = message::service_request(self.family, Command::GetService, key);
        let operation = Operation::ReadService(*key);
        self.one(request, operation, message::service).await
    }

    /// Reads the destinations of a service in the kernel's order: the one added last comes
    /// first. The kernel answers with none for a service that is not there.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn destinations(&self, service: &ServiceKey) -> Result<Vec<Destination>, Error> {
        let (family, key) = (self.family, *service);
        let read = move |socket: &mut Socket| {
            let mut found = Vec::new();
            destinations(socket, family, &key, &mut Requests::default(), &mut found)?;
            Ok(found)
        };
        self.call(Operation::ListDestinations(key), read).await
    }

    /// Reads everything: all services, each with its destinations in the kernel's order.
    ///
    /// The kernel answers with one service's destinations at a time. A service that somebody
    /// else deletes meanwhile is there without any.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn tables(&self) -> Result<Vec<(Service, Vec<Destination>)>, Error> {
        let services = self.services().await?;
        self.tables_of(services).await
    }

    /// Reads the destinations of these services, as [`Ipvs::destinations`] does for one. Who
    /// reads a large table in several such calls lets other calls in between, and holds no more
    /// than a part of it at a time.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn tables_of(
        &self,
        services: Vec<Service>,
    ) -> Result<Vec<(Service, Vec<Destination>)>, Error> {
        let family = self.family;
        let read = move |socket: &mut Socket| {
            let mut tables = Vec::with_capacity(services.len());
            let mut request = Requests::default();
            let mut expected = 0;
            for service in services {
                // As many as the one before: most tables are like that, and none grows twice.
                let mut found = Vec::with_capacity(expected);
                destinations(socket, family, &service.spec.key, &mut request, &mut found)?;
                expected = found.len();
                found.shrink_to_fit();
                tables.push((service, found));
            }
            Ok(tables)
        };
        self.call(Operation::ListServices, read).await
    }

    /// Reads the destinations of these services as the kernel's older interface says them, in the
    /// kernel's order: a tenth of the time that [`Ipvs::tables_of`] takes. Nothing for a service
    /// that is not there, and for one that this interface does not say or not all of: an IPv6
    /// service, or one with an IPv6 destination.
    ///
    /// It is for finding out what did not change: see [`DestinationEntry::is`] and
    /// [`DestinationEntry::can_say`].
    ///
    /// # Errors
    /// See [`Cause`]. What netlink answers may fail here, as for a 32 bit program on a 64 bit
    /// kernel, whose structures are others. The kernel logs each call that fails so.
    pub async fn entries(
        &self,
        services: Vec<ServiceKey>,
    ) -> Result<Vec<Option<Vec<DestinationEntry>>>, Error> {
        let services = services.into_iter().map(|key| (key, ())).collect();
        self.with_entries(services, |(), entries| entries.to_vec())
            .await
    }

    /// The same for who only looks at them: `look` is given what stands beside each service, and
    /// its destinations, on the thread that reads them, where all services share the memory of
    /// one. Whoever drops the future ends it after the service that is being looked at.
    ///
    /// # Errors
    /// Those of [`Ipvs::entries`].
    pub async fn with_entries<T: Send + 'static, R: Send + 'static>(
        &self,
        services: Vec<(ServiceKey, T)>,
        look: impl Fn(&T, &[DestinationEntry]) -> R + Send + 'static,
    ) -> Result<Vec<Option<R>>, Error> {
        let read = move |socket: &mut EntrySocket, given_up: &dyn Fn() -> bool| {
            let mut found = Vec::with_capacity(services.len());
            for (key, beside) in services.iter().take_while(|_| !given_up()) {
                let entries = socket.destinations(key)?;
                found.push(entries.map(|entries| look(beside, entries)));
            }
            Ok(found)
        };
        self.of_entries(read).await
    }

    /// Folds all IPv4 services and their destinations, as the kernel's older interface says them:
    /// the services in no order, the destinations in the kernel's. It ends with nothing where
    /// `fold` does, at a service that this interface does not say all of, and where services come
    /// or go meanwhile. Whoever drops the future ends it after the service that is being folded.
    ///
    /// It is for finding out whether anything changed: a fraction of the time that
    /// [`Ipvs::tables`] takes. See [`ServiceEntry::is`] and [`DestinationEntry::is`]. Who found
    /// that nothing did has a fingerprint then, with which [`Ipvs::is_still`] finds it sooner.
    ///
    /// # Errors
    /// Those of [`Ipvs::entries`].
    pub async fn try_fold_entries<T: Send + 'static>(
        &self,
        init: T,
        mut fold: impl FnMut(T, &ServiceEntry, &[DestinationEntry]) -> Option<T> + Send + 'static,
    ) -> Result<Option<(T, Fingerprint)>, Error> {
        let read = move |socket: &mut EntrySocket, given_up: &dyn Fn() -> bool| {
            socket.try_fold(init, |folded, service, destinations| {
                let next = fold(folded, service, destinations)?;
                (!given_up()).then_some(next)
            })
        };
        self.of_entries(read).await
    }

    /// Whether the kernel's older interface says of all IPv4 services and their destinations,
    /// byte by byte, what it said when this fingerprint was taken; that it does by chance is one
    /// in 2⁶⁴. It ends with the first difference, or when the future is dropped.
    ///
    /// # Errors
    /// Those of [`Ipvs::entries`].
    pub async fn is_still(&self, then: Arc<Fingerprint>) -> Result<bool, Error> {
        let read = move |socket: &mut EntrySocket, given_up: &dyn Fn() -> bool| {
            socket.is_still(&then, given_up)
        };
        self.of_entries(read).await
    }

    async fn of_entries<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut EntrySocket, &dyn Fn() -> bool) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |sockets: &mut Sockets, given_up: &dyn Fn() -> bool| {
            let socket = sockets.entries.as_mut().map_err(|errno| *errno)?;
            read(socket, given_up)
        };
        let result = match self.work(work).await {
            Some(result) => result.map_err(|errno| Failure::Refused(errno.raw_os_error())),
            None => Err(Failure::Incomplete),
        };
        result.map_err(|failure| Error::new(Operation::ListEntries, failure))
    }

    /// Makes changes one after another and returns what became of each, in their order. One that
    /// fails does not keep the later ones from being tried.
    ///
    /// Many of them go to the kernel in one call, which is several times as fast as one at a
    /// time. When the future is dropped, those that were not begun are not made.
    pub async fn apply(&self, changes: &[Change]) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(changes.len());
        for window in changes.chunks(WINDOW) {
            let mut requests = Requests::default();
            for change in window {
                message::push_change(&mut requests, self.family, change);
            }
            let tell = move |sockets: &mut Sockets, _: &dyn Fn() -> bool| {
                sockets.netlink.tell(&mut requests)
            };
            let told = self.work(tell).await;
            match told {
                Some(told) => {
                    let failed = |(change, failure)| Error::of_change(change, failure);
                    let told = window.iter().zip(told).map(|(change, result)| {
                        result.map_err(|failure| failed((change, failure)))
                    });
                    results.extend(told);
                }
                None => results.extend(
                    window
                        .iter()
                        .map(|change| Err(Error::of_change(change, Failure::Incomplete))),
                ),
            }
        }
        results
    }

    /// Adds a service. The kernel loads the scheduler's module where it can.
    ///
    /// # Errors
    /// [`Cause::Exists`], [`Cause::UnknownScheduler`] and others.
    pub async fn add_service(&self, spec: &ServiceSpec) -> Result<(), Error> {
        self.change(Change::AddService(spec.clone())).await
    }

    /// Changes a service's scheduler, flags and persistence.
    ///
    /// # Errors
    /// [`Cause::NoService`], [`Cause::UnknownScheduler`] and others.
    pub async fn set_service(&self, spec: &ServiceSpec) -> Result<(), Error> {
        self.change(Change::SetService(spec.clone())).await
    }

    /// Deletes a service and its destinations.
    ///
    /// # Errors
    /// [`Cause::NoService`] and others.
    pub async fn delete_service(&self, key: &ServiceKey) -> Result<(), Error> {
        self.change(Change::DeleteService(*key)).await
    }

    /// Zeroes the counters of a service and of its destinations.
    ///
    /// # Errors
    /// [`Cause::NoService`] and others.
    pub async fn zero_service(&self, key: &ServiceKey) -> Result<(), Error> {
        self.change(Change::ZeroService(*key)).await
    }

    /// Adds a destination to a service, at the head of the kernel's list.
    ///
    /// # Errors
    /// [`Cause::NoService`], [`Cause::Exists`] and others.
    pub async fn add_destination(
        &self,
        service: &ServiceKey,
        spec: &DestinationSpec,
    ) -> Result<(), Error> {
        self.change(Change::AddDestination(*service, spec.clone()))
            .await
    }

    /// Changes a destination's forwarding, weight, thresholds and tunnel.
    ///
    /// # Errors
    /// [`Cause::NoService`], [`Cause::NoDestination`] and others.
    pub async fn set_destination(
        &self,
        service: &ServiceKey,
        spec: &DestinationSpec,
    ) -> Result<(), Error> {
        self.change(Change::SetDestination(*service, spec.clone()))
            .await
    }

    /// Deletes a destination.
    ///
    /// # Errors
    /// [`Cause::NoService`], [`Cause::NoDestination`] and others.
    pub async fn delete_destination(
        &self,
        service: &ServiceKey,
        address: SocketAddr,
    ) -> Result<(), Error> {
        self.change(Change::DeleteDestination(*service, address))
            .await
    }

    /// Makes one change.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn change(&self, change: Change) -> Result<(), Error> {
        let result = self.apply(std::slice::from_ref(&change)).await.pop();
        result.unwrap_or_else(|| Err(Error::of_change(&change, Failure::Incomplete)))
    }

    /// Asks for something of which there is one.
    async fn one<T: Send + 'static>(
        &self,
        mut request: Requests,
        operation: Operation,
        read: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Error> {
        let ask = move |socket: &mut Socket| {
            let mut answer = None;
            socket.ask(&mut request, Answer::One, |message| {
                answer = Some(read(message)?);
                Ok(())
            })?;
            answer.ok_or(Failure::Incomplete)
        };
        self.call(operation, ask).await
    }

    /// Tells the kernel something that is no [`Change`].
    async fn tell(&self, mut request: Requests, operation: Operation) -> Result<(), Error> {
        let tell = move |socket: &mut Socket| {
            let result = socket.tell(&mut request).pop();
            result.unwrap_or(Err(Failure::Incomplete))
        };
        self.call(operation, tell).await
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Socket) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |sockets: &mut Sockets, _: &dyn Fn() -> bool| work(&mut sockets.netlink);
        let result = self.work(work).await.unwrap_or(Err(Failure::Incomplete));
        result.map_err(|failure| Error::new(operation, failure))
    }

    /// Has the thread do something, which may ask whether the caller has given up meanwhile;
    /// nothing is returned if the thread has ended, which it does before the last connection is
    /// dropped only by a panic.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Sockets, &dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, result) = oneshot::channel();
        let job = move |sockets: &mut Sockets| {
            // Nobody waits for it any more: what was not begun is not done.
            if !answer.is_closed() {
                let done = work(sockets, &|| answer.is_closed());
                drop(answer.send(done));
            }
        };
        self.jobs.send(Box::new(job)).await.ok()?;
        result.await.ok()
    }
}

fn services(socket: &mut Socket, family: u16) -> Result<Vec<Service>, Failure> {
    let mut services = Vec::new();
    let mut request = message::request(family, Command::GetService);
    socket.ask(&mut request, Answer::Dump, |message| {
        services.push(message::service(message)?);
        Ok(())
    })?;
    Ok(services)
}

/// Reads the destinations of a service into `found`; `request` is only memory.
fn destinations(
    socket: &mut Socket,
    family: u16,
    service: &ServiceKey,
    request: &mut Requests,
    found: &mut Vec<Destination>,
) -> Result<(), Failure> {
    request.clear();
    message::push_service_request(request, family, Command::GetDest, service);
    socket.ask(request, Answer::Dump, |message| {
        found.push(message::destination(message, service.family())?);
        Ok(())
    })
}
