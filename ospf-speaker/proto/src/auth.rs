//! Authentication of an interface's packets: which key is in force, what is put on a packet that
//! leaves, and what is asked of one that comes in (RFC 2328 §8.2, §D; RFC 5709).
//!
//! Packets wait in the router's one queue without authentication and get it when they leave
//! ([`Router::poll_transmit`]), so that sequence numbers leave in order.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::NetworkType;
use crate::counters::PacketDrop;
use crate::ids::{InterfaceId, NeighborId, RouterId};
use crate::packet::auth::{self, Algorithm, CryptographicField, MAX_MD5_SECRET, MAX_PASSWORD};
use crate::packet::{DecodeError, Envelope};
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::view::{Event, Transmit};

/// How the packets of an interface are authenticated. All routers of its network agree on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// Not at all (AuType 0).
    #[default]
    Null,
    /// By a password that everybody on the network can read (AuType 1).
    Simple(Secret),
    /// By a digest over packet and secret (AuType 2), with at least one key.
    Cryptographic(Vec<Key>),
}

/// A key of cryptographic authentication (RFC 2328 §D.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id, which the packets carry.
    pub id: u8,
    /// The algorithm that it is for.
    pub algorithm: Algorithm,
    /// What the routers of the network share.
    pub secret: Secret,
    /// When packets are sent with it.
    pub send: Lifetime,
    /// When packets with it are accepted.
    pub accept: Lifetime,
}

/// A secret, which no log and no view shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A time with an open end on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    /// Its first moment; since ever when absent.
    pub from: Option<Instant>,
    /// The first moment after it; for ever when absent.
    pub until: Option<Instant>,
}

impl Lifetime {
    /// Always.
    pub const ALWAYS: Self = Self {
        from: None,
        until: None,
    };

    fn standing(self, now: Instant) -> Standing {
        if self.until.is_some_and(|until| until <= now) {
            Standing::Expired
        } else if self.from.is_some_and(|from| from > now) {
            Standing::Early
        } else {
            Standing::Valid
        }
    }
}

/// How a key in use stands to its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time is now.
    Valid,
    /// Every key has expired, and this one last. It stays in use, because neither silence nor
    /// packets without authentication would be better (RFC 2328 §D.3).
    Expired,
    /// No key's time has come yet, and this one's comes first: most likely the clock is wrong.
    Early,
}

/// An [`Authentication`] that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// Cryptographic authentication without a key.
    #[error("there is no key")]
    NoKey,
    /// Two keys of one id.
    #[error("key id {0} is there twice")]
    DuplicateKey(u8),
    /// A secret of no bytes.
    #[error("the secret is empty")]
    EmptySecret,
    /// A secret that the algorithm would cut off.
    #[error("the secret has {length} bytes, {most} at most are possible")]
    LongSecret {
        /// Its length.
        length: usize,
        /// The most that the algorithm takes.
        most: usize,
    },
}

impl Authentication {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    /// The first fault.
    pub fn validate(&self) -> Result<(), AuthenticationError> {
        match self {
            Self::Null => Ok(()),
            Self::Simple(password) => password.validate(MAX_PASSWORD),
            Self::Cryptographic(keys) => {
                if keys.is_empty() {
                    return Err(AuthenticationError::NoKey);
                }
                for (index, key) in keys.iter().enumerate() {
                    if keys.iter().take(index).any(|other| other.id == key.id) {
                        return Err(AuthenticationError::DuplicateKey(key.id));
                    }
                    key.secret.validate(match key.algorithm {
                        Algorithm::Md5 => MAX_MD5_SECRET,
                        Algorithm::HmacSha1
                        | Algorithm::HmacSha256
                        | Algorithm::HmacSha384
                        | Algorithm::HmacSha512 => usize::MAX,
                    })?;
                }
                Ok(())
            }
        }
    }

    fn auth_type(&self) -> u16 {
        match self {
            Self::Null => auth::NULL,
            Self::Simple(_) => auth::SIMPLE,
            Self::Cryptographic(_) => auth::CRYPTOGRAPHIC,
        }
    }

    /// The most bytes that follow a packet.
    fn trailer_len(&self) -> usize {
        match self {
            Self::Null | Self::Simple(_) => 0,
            Self::Cryptographic(keys) => keys
                .iter()
                .map(|key| usize::from(key.algorithm.digest_len()))
                .max()
                .unwrap_or(0),
        }
    }

    /// The digest's part of §D.5; the key id and the sequence number that vouch for the packet.
    fn verify(
        &self,
        now: Instant,
        envelope: &Envelope<'_>,
    ) -> Result<Option<CryptographicField>, Refusal> {
        if envelope.auth_type != self.auth_type() {
            return Err(Refusal::Type {
                found: envelope.auth_type,
                ours: self.auth_type(),
            });
        }
        match self {
            Self::Null => Ok(envelope.check_sum().map(|()| None)?),
            Self::Simple(password) => {
                envelope.check_sum()?;
                if auth::has_password(&password.0, envelope) {
                    Ok(None)
                } else {
                    Err(Refusal::Password)
                }
            }
            Self::Cryptographic(keys) => verify_digest(keys, now, envelope).map(Some),
        }
    }
}

impl Secret {
    fn validate(&self, most: usize) -> Result<(), AuthenticationError> {
        let length = self.0.len();
        if length == 0 {
            Err(AuthenticationError::EmptySecret)
        } else if length > most {
            Err(AuthenticationError::LongSecret { length, most })
        } else {
            Ok(())
        }
    }
}

fn verify_digest(
    keys: &[Key],
    now: Instant,
    envelope: &Envelope<'_>,
) -> Result<CryptographicField, Refusal> {
    let field = CryptographicField::decode(envelope.auth_data);
    let id = field.key_id;
    let Some(key) = keys.iter().find(|key| key.id == id) else {
        let ours = keys.iter().map(|key| key.id).collect();
        return Err(Refusal::UnknownKey { id, ours });
    };
    let is_accepted = match key.accept.standing(now) {
        Standing::Valid => true,
        Standing::Expired | Standing::Early => in_force(keys, now, |key| key.accept)
            .is_some_and(|(last, standing)| standing != Standing::Valid && last.id == id),
    };
    if !is_accepted {
        return Err(Refusal::KeyLifetime { id });
    }
    let algorithm = key.algorithm;
    if field.length != algorithm.digest_len() {
        return Err(Refusal::Length {
            id,
            found: field.length,
            algorithm,
        });
    }
    if !auth::has_digest(algorithm, &key.secret.0, envelope) {
        return Err(Refusal::Digest { id, algorithm });
    }
    Ok(field)
}

/// The key to use now, by one of its two lifetimes: the youngest of those that are valid. When
/// none is, the one that expired last, or else the one that comes first.
fn in_force(
    keys: &[Key],
    now: Instant,
    lifetime: impl Fn(&Key) -> Lifetime,
) -> Option<(&Key, Standing)> {
    let with = |wanted: Standing| {
        keys.iter()
            .filter(|key| lifetime(key).standing(now) == wanted)
            .collect::<Vec<&Key>>()
    };
    let valid = with(Standing::Valid);
    if let Some(youngest) = valid.into_iter().max_by_key(|key| lifetime(key).from) {
        return Some((youngest, Standing::Valid));
    }
    let expired = with(Standing::Expired);
    if let Some(last) = expired.into_iter().max_by_key(|key| lifetime(key).until) {
        return Some((last, Standing::Expired));
    }
    let early = with(Standing::Early);
    let first = early.into_iter().min_by_key(|key| lifetime(key).from)?;
    Some((first, Standing::Early))
}

/// Why a packet is not taken for what it says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("authentication: {} in place of {}", type_name(*.found), type_name(*.ours))]
    Type { found: u16, ours: u16 },
    #[error(transparent)]
    Checksum(#[from] DecodeError),
    #[error("authentication: another password")]
    Password,
    #[error("authentication: key id {id} unknown, ours: {}", list(.ours))]
    UnknownKey { id: u8, ours: Vec<u8> },
    #[error("authentication: key id {id} is not accepted now, by its lifetime")]
    KeyLifetime { id: u8 },
    #[error("authentication: key id {id} with a digest of {found} bytes in place of {}, that of {algorithm}", .algorithm.digest_len())]
    Length {
        id: u8,
        found: u8,
        algorithm: Algorithm,
    },
    #[error(
        "authentication: key id {id} with a digest that is not ours by {algorithm}: another key?"
    )]
    Digest { id: u8, algorithm: Algorithm },
    #[error(
        "authentication: key id {id} with sequence number {found} after {last}: a replay, or reordered"
    )]
    Replay { id: u8, found: u32, last: u32 },
}

impl Refusal {
    /// What it is counted under.
    pub(crate) fn reason(&self) -> PacketDrop {
        match self {
            Self::Type { .. } => PacketDrop::AuthType,
            Self::Checksum(error) => error.reason(),
            Self::Password => PacketDrop::AuthPassword,
            Self::UnknownKey { .. } => PacketDrop::AuthUnknownKey,
            Self::KeyLifetime { .. } => PacketDrop::AuthKeyLifetime,
            Self::Length { .. } | Self::Digest { .. } => PacketDrop::AuthDigest,
            Self::Replay { .. } => PacketDrop::AuthReplay,
        }
    }
}

fn type_name(auth_type: u16) -> String {
    match auth_type {
        auth::NULL => "none".to_owned(),
        auth::SIMPLE => "a simple password".to_owned(),
        auth::CRYPTOGRAPHIC => "a cryptographic digest".to_owned(),
        other => format!("type {other}"),
    }
}

fn list(ids: &[u8]) -> String {
    let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
    ids.join(", ")
}

/// An interface's authentication and what it has come to.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    settings: Authentication,
    /// The sequence number of the next packet that leaves with a digest.
    pub(crate) next_sequence: u32,
    /// The key of the last packet, to tell when it changes.
    last_used: Option<(u8, Standing)>,
    refused: Option<Refused>,
}

/// The packets that an interface refused for their authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// How many there were since the start.
    pub count: u64,
    /// When the last one came.
    pub at: Instant,
    /// Its source.
    pub source: Ipv4Addr,
    /// What was found in place of what, in words.
    pub detail: String,
}

/// What a neighbour's last accepted packet was authenticated by (§D.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The key's id.
    pub key_id: u8,
    /// The sequence number; a lower one is refused from now on.
    pub sequence: u32,
}

impl Authenticator {
    /// Without authentication yet, but to go on from a sequence number when it comes.
    pub(crate) fn new(next_sequence: u32) -> Self {
        Self {
            next_sequence,
            ..Self::default()
        }
    }

    /// The bytes that a packet must leave free for what follows it.
    pub(crate) fn trailer_len(&self) -> usize {
        self.settings.trailer_len()
    }

    /// Puts the authentication on a packet; the key and its standing when they are others than
    /// the last packet's.
    fn seal(&mut self, now: Instant, packet: &mut Vec<u8>) -> Option<(u8, Standing)> {
        match &self.settings {
            Authentication::Null => None,
            Authentication::Simple(password) => {
                auth::add_password(&password.0, packet);
                None
            }
            Authentication::Cryptographic(keys) => {
                let (key, standing) = in_force(keys, now, |key| key.send)?;
                let (secret, sequence) = (&key.secret.0, self.next_sequence);
                auth::add_digest(key.algorithm, secret, key.id, sequence, packet);
                // At the end of the numbers, which takes decades, the last one is repeated:
                // it is not less than itself, and starting over would end the adjacencies.
                self.next_sequence = sequence.saturating_add(1);
                let used = (key.id, standing);
                let changed = self.last_used.replace(used) != Some(used);
                changed.then_some(used)
            }
        }
    }
}

/// The authentication of an interface, for show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationView {
    /// None.
    Null,
    /// A password.
    Simple,
    /// A digest.
    Cryptographic {
        /// The key that packets are sent with.
        key_id: u8,
        /// Its algorithm.
        algorithm: Algorithm,
        /// How it stands to its lifetime.
        standing: Standing,
        /// The ids of the keys that are accepted.
        accepted: Vec<u8>,
    },
}

impl Router {
    /// How an interface's packets are authenticated from now on; until the first call they are
    /// not. A call with other lifetimes, after the wall clock was set, or with further keys ends
    /// no adjacency: sequence numbers go on.
    ///
    /// # Errors
    /// What is wrong with it; all stays as it was.
    pub fn set_authentication(
        &mut self,
        id: InterfaceId,
        authentication: Authentication,
    ) -> Result<(), AuthenticationError> {
        authentication.validate()?;
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            interface.auth.settings = authentication;
        }
        Ok(())
    }

    /// The sequence numbers of an interface go on from here, unless they are beyond it: above
    /// all that earlier runs used, before the first packet leaves.
    pub fn raise_auth_sequence(&mut self, id: InterfaceId, at_least: u32) {
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            let auth = &mut interface.auth;
            auth.next_sequence = auth.next_sequence.max(at_least);
        }
    }

    /// The sequence number of the next packet that an interface sends with a digest. The shell
    /// reserves it before that packet leaves, so that no later run uses it again.
    pub fn next_auth_sequence(&self, id: InterfaceId) -> Option<u32> {
        let auth = &self.interfaces.get(id.0)?.auth;
        match auth.settings {
            Authentication::Null | Authentication::Simple(_) => None,
            Authentication::Cryptographic(_) => Some(auth.next_sequence),
        }
    }

    /// How an interface's packets are authenticated.
    pub fn authentication(&self, now: Instant, id: InterfaceId) -> Option<AuthenticationView> {
        Some(match &self.interfaces.get(id.0)?.auth.settings {
            Authentication::Null => AuthenticationView::Null,
            Authentication::Simple(_) => AuthenticationView::Simple,
            Authentication::Cryptographic(keys) => {
                let (key, standing) = in_force(keys, now, |key| key.send)?;
                let valid = |key: &&Key| key.accept.standing(now) == Standing::Valid;
                let mut accepted: Vec<u8> = keys.iter().filter(valid).map(|key| key.id).collect();
                if accepted.is_empty() {
                    accepted.extend(in_force(keys, now, |key| key.accept).map(|(key, _)| key.id));
                }
                AuthenticationView::Cryptographic {
                    key_id: key.id,
                    algorithm: key.algorithm,
                    standing,
                    accepted,
                }
            }
        })
    }

    /// The packets that an interface refused for their authentication, if there were any.
    pub fn last_refused(&self, id: InterfaceId) -> Option<&Refused> {
        self.interfaces.get(id.0)?.auth.refused.as_ref()
    }

    /// Keeps what was refused for [`Router::last_refused`].
    pub(crate) fn note_refused(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        refusal: &Refusal,
    ) {
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            let before = &interface.auth.refused;
            interface.auth.refused = Some(Refused {
                count: before.as_ref().map_or(0, |refused| refused.count) + 1,
                at: now,
                source,
                detail: refusal.to_string(),
            });
        }
    }

    /// Puts the authentication on a packet that leaves now, by the time of the input at hand.
    pub(crate) fn seal(&mut self, transmit: &mut Transmit) {
        let repeats = self.is_sabotaged(Sabotage::RepeatTheAuthSequence);
        let Some(interface) = self.interfaces.get_mut(transmit.interface.0) else {
            return;
        };
        let now = self.latest;
        let sequence = interface.auth.next_sequence;
        let changed = interface.auth.seal(now, &mut transmit.payload);
        if repeats {
            interface.auth.next_sequence = sequence;
        }
        if let Some((key_id, standing)) = changed {
            self.event(Event::SendKey {
                interface: transmit.interface,
                key_id,
                standing,
            });
        }
    }

    /// §D.5 for a packet from this source; what it was vouched for by.
    pub(crate) fn authenticate(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        envelope: &Envelope<'_>,
    ) -> Result<Option<Received>, Refusal> {
        let Some(interface) = self.interfaces.get(id.0) else {
            return Ok(None);
        };
        let Some(field) = interface.auth.settings.verify(now, envelope)? else {
            return Ok(None);
        };
        let received = Received {
            key_id: field.key_id,
            sequence: field.sequence,
        };
        let from = self.neighbor_id(id, source, envelope.header.router_id);
        let last = self.neighbor(from).and_then(|neighbor| neighbor.received);
        // Equal is not less (§D.5.3), and BIRD numbers all packets of a second alike.
        if let Some(last) = last
            && received.sequence < last.sequence
        {
            return Err(Refusal::Replay {
                id: received.key_id,
                found: received.sequence,
                last: last.sequence,
            });
        }
        self.note_received(from, Some(received));
        Ok(Some(received))
    }

    /// Keeps what a neighbour's packet was authenticated by; nothing where the neighbour does
    /// not exist (yet).
    pub(crate) fn note_received(&mut self, from: NeighborId, received: Option<Received>) {
        if let Some(neighbor) = self.neighbor_mut(from) {
            neighbor.received = received;
        }
    }

    /// The neighbour that a packet is from, known or not (§8.2).
    pub(crate) fn neighbor_id(
        &self,
        id: InterfaceId,
        source: Ipv4Addr,
        router_id: RouterId,
    ) -> NeighborId {
        let network = self.interfaces.get(id.0).map(|at| at.settings.network);
        let key = match network {
            Some(NetworkType::PointToPoint) | None => router_id.0,
            Some(NetworkType::Broadcast) => source,
        };
        NeighborId { interface: id, key }
    }
}
