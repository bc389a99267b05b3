//! The connection to the kernel.

use std::net::SocketAddr;

use futures_util::StreamExt;
use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_proto::ConnectionHandle;
use netlink_proto::sys::SocketAddr as NetlinkAddr;
use netlink_proto::sys::protocols::NETLINK_GENERIC;

use crate::destination::{Destination, DestinationSpec};
use crate::error::{Cause, Error, Operation};
use crate::message::{self, Command, Info, Message, Timeouts};
use crate::service::{Service, ServiceKey, ServiceSpec};

/// A connection to IPVS in the network namespace of the thread that opened it.
///
/// It is driven by a task that ends when the last clone is dropped. Dropping a call's future
/// leaves the connection usable; whether the kernel has done what was asked is then unknown.
#[derive(Debug, Clone)]
pub struct Ipvs {
    handle: ConnectionHandle<Message>,
    family: u16,
}

/// How an answer ends.
#[derive(Clone, Copy)]
enum Answer {
    /// With an acknowledgement alone.
    Acknowledgement,
    /// With its only message.
    One,
    /// With a message that says so.
    Many,
}

impl Answer {
    fn flags(self) -> u16 {
        match self {
            Self::Acknowledgement => NLM_F_REQUEST | NLM_F_ACK,
            Self::One => NLM_F_REQUEST,
            Self::Many => NLM_F_REQUEST | NLM_F_DUMP,
        }
    }
}

impl Ipvs {
    /// Opens a connection and looks the family up, which makes the kernel load the module where
    /// it can. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Cause::NoModule`] where the kernel has no IPVS and cannot load it.
    pub async fn connect() -> Result<Self, Error> {
        let socket = |error| Error {
            operation: Operation::Connect,
            cause: Cause::Socket(error),
        };
        let (mut connection, handle, _) =
            netlink_proto::new_connection(NETLINK_GENERIC).map_err(socket)?;
        // Without these the end of an answer looks like the end of the connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        let ask = Message::get_family();
        let answer = exchange(&handle, ask, Answer::One, &Operation::Connect).await?;
        let family = only(answer, Operation::Connect, Message::family_number)?;
        Ok(Self { handle, family })
    }

    /// Reads the version of IPVS.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn info(&self) -> Result<Info, Error> {
        let operation = Operation::ReadInfo;
        let answer = self.ask(Command::GetInfo, &[], Answer::One, &operation);
        only(answer.await?, operation, Message::info)
    }

    /// Reads the timeouts.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn timeouts(&self) -> Result<Timeouts, Error> {
        let operation = Operation::ReadTimeouts;
        let answer = self.ask(Command::GetConfig, &[], Answer::One, &operation);
        only(answer.await?, operation, Message::timeouts)
    }

    /// Writes the timeouts.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn set_timeouts(&self, timeouts: Timeouts) -> Result<(), Error> {
        let attributes = message::timeouts(timeouts);
        self.tell(Command::SetConfig, &attributes, Operation::SetTimeouts)
            .await
    }

    /// Reads all services, also those by firewall mark.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        let operation = Operation::ListServices;
        let answer = self.ask(Command::GetService, &[], Answer::Many, &operation);
        all(answer.await?, operation, Message::service)
    }

    /// Reads one service.
    ///
    /// # Errors
    /// [`Cause::NoService`] and others.
    pub async fn service(&self, key: &ServiceKey) -> Result<Service, Error> {
        let operation = Operation::ReadService(*key);
        let attributes = message::service_key(key);
        let answer = self.ask(Command::GetService, &attributes, Answer::One, &operation);
        only(answer.await?, operation, Message::service)
    }

    /// Reads the destinations of a service in the kernel's order: the one added last comes
    /// first. The kernel answers with none for a service that is not there.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn destinations(&self, service: &ServiceKey) -> Result<Vec<Destination>, Error> {
        let operation = Operation::ListDestinations(*service);
        let attributes = message::service_key(service);
        let answer = self.ask(Command::GetDest, &attributes, Answer::Many, &operation);
        let family = service.family();
        all(answer.await?, operation, |message| {
            message.destination(family)
        })
    }

    /// Adds a service. The kernel loads the scheduler's module where it can.
    ///
    /// # Errors
    /// [`Cause::Exists`], [`Cause::UnknownScheduler`] and others.
    pub async fn add_service(&self, spec: &ServiceSpec) -> Result<(), Error> {
        let operation = Operation::AddService(spec.key, spec.scheduler.clone());
        self.tell(Command::NewService, &message::service_spec(spec), operation)
            .await
    }

    /// Changes a service's scheduler, flags and persistence.
    ///
    /// # Errors
    /// [`Cause::NoService`], [`Cause::UnknownScheduler`] and others.
    pub async fn set_service(&self, spec: &ServiceSpec) -> Result<(), Error> {
        let operation = Operation::SetService(spec.key, spec.scheduler.clone());
        self.tell(Command::SetService, &message::service_spec(spec), operation)
            .await
    }

    /// Deletes a service and its destinations.
    ///
    /// # Errors
    /// [`Cause::NoService`] and others.
    pub async fn delete_service(&self, key: &ServiceKey) -> Result<(), Error> {
        let attributes = message::service_key(key);
        let operation = Operation::DeleteService(*key);
        self.tell(Command::DelService, &attributes, operation).await
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
        let attributes = message::destination_spec(service, spec);
        let operation = Operation::AddDestination(*service, spec.address);
        self.tell(Command::NewDest, &attributes, operation).await
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
        let attributes = message::destination_spec(service, spec);
        let operation = Operation::SetDestination(*service, spec.address);
        self.tell(Command::SetDest, &attributes, operation).await
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
        let attributes = message::destination_key(service, address);
        let operation = Operation::DeleteDestination(*service, address);
        self.tell(Command::DelDest, &attributes, operation).await
    }

    async fn ask(
        &self,
        command: Command,
        attributes: &[DefaultNla],
        answer: Answer,
        operation: &Operation,
    ) -> Result<Vec<Message>, Error> {
        let request = Message::request(self.family, command, attributes);
        exchange(&self.handle, request, answer, operation).await
    }

    async fn tell(
        &self,
        command: Command,
        attributes: &[DefaultNla],
        operation: Operation,
    ) -> Result<(), Error> {
        let acknowledged = Answer::Acknowledgement;
        self.ask(command, attributes, acknowledged, &operation)
            .await
            .map(|_| ())
    }
}

/// Sends a request and gathers its answer to the end.
async fn exchange(
    handle: &ConnectionHandle<Message>,
    request: Message,
    answer: Answer,
    operation: &Operation,
) -> Result<Vec<Message>, Error> {
    let failed = |cause| Error {
        operation: operation.clone(),
        cause,
    };
    // Port 0 is the kernel's.
    let kernel = NetlinkAddr::new(0, 0);
    let mut request = NetlinkMessage::from(request);
    request.header.flags = answer.flags();
    let mut replies = handle
        .request(request, kernel)
        .map_err(|_| failed(Cause::Closed))?;
    let mut messages = Vec::new();
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(message) => {
                messages.push(message);
                if matches!(answer, Answer::One) {
                    return Ok(messages);
                }
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(failed(Cause::from_errno(error.to_io(), operation)));
            }
            NetlinkPayload::Done(done) if done.code != 0 => {
                let error = std::io::Error::from_raw_os_error(done.code.saturating_abs());
                return Err(failed(Cause::from_errno(error, operation)));
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(messages),
            NetlinkPayload::Overrun(_) => return Err(failed(Cause::Closed)),
            // NLMSG_NOOP is to be ignored; a payload kind of a later crate means nothing here.
            _ => {}
        }
    }
    Err(failed(Cause::Closed))
}

fn all<T>(
    messages: Vec<Message>,
    operation: Operation,
    read: impl Fn(&Message) -> Result<T, DecodeError>,
) -> Result<Vec<T>, Error> {
    messages
        .iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|error| Error {
            operation,
            cause: Cause::Decode(error),
        })
}

fn only<T>(
    messages: Vec<Message>,
    operation: Operation,
    read: impl Fn(&Message) -> Result<T, DecodeError>,
) -> Result<T, Error> {
    let closed = Error {
        operation: operation.clone(),
        cause: Cause::Closed,
    };
    all(messages, operation, read)?.pop().ok_or(closed)
}
