//! Ways to break the core, each against one property that the simulator asserts: a property that
//! cannot fail proves nothing.
//!
//! Only with the feature `sabotage`, which nothing but the mutation check
//! (`tests/simulator/mutations.rs`) enables; without it every question is a constant `false`.

use crate::router::Router;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "sabotage"),
    expect(
        unreachable_pub,
        dead_code,
        reason = "only the mutation check makes them, from outside"
    )
)]
pub enum Sabotage {
    /// LSAs are not flooded on from one neighbour to another.
    FloodNothingOn,
    /// A change that has to wait for the pace is forgotten.
    LoseTheLastState,
    /// A newer copy of our own LSA is left alone (against RFC 2328 §13.4).
    OutbidNothing,
    /// Instances leave without a pace.
    Hurry,
    /// The sequence hint is not looked at.
    ForgetTheHint,
    /// What is dropped for MinLSArrival is acknowledged.
    AcknowledgeDropped,
    /// Acknowledgements do not end retransmission.
    RetransmitForEver,
    /// LSAs at MaxAge stay.
    PurgeNothing,
    /// LSAs at MaxAge leave though somebody is in Exchange or Loading.
    PurgeTooSoon,
    /// Links to routers cost 10.
    InviteTransit,
    /// Hellos have priority 1.
    StandForElection,
    /// A neighbour is Full when the exchange is over, whatever is left to request.
    FullTooSoon,
    /// Database Descriptions and requests are sent once.
    AskOnce,
    /// The sequence number of cryptographic authentication stays where it is.
    RepeatTheAuthSequence,
    /// What was announced stays announced.
    KeepUnhealthy,
    /// A process that takes over does not know the neighbours.
    ForgetTheNeighbors,
    /// A byte follows each packet.
    TrailingByte,
    /// The next timeout is the present time.
    StandStill,
    /// First Database Description sequence numbers come from elsewhere than the seed.
    IgnoreTheSeed,
}

#[cfg(feature = "sabotage")]
impl Router {
    /// The router, broken.
    #[must_use]
    pub fn sabotaged(mut self, sabotage: Sabotage) -> Self {
        if sabotage == Sabotage::ForgetTheNeighbors {
            for interface in &mut self.interfaces {
                interface.neighbors.clear();
            }
        }
        if sabotage == Sabotage::ForgetTheHint {
            self.own.forget_the_hint();
        }
        self.sabotage = Some(sabotage);
        self
    }

    pub(crate) fn is_sabotaged(&self, how: Sabotage) -> bool {
        self.sabotage == Some(how)
    }

    /// A number that no seed decides.
    pub(crate) fn unseeded() -> u32 {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(not(feature = "sabotage"))]
impl Router {
    #[expect(
        clippy::unused_self,
        reason = "with the feature the answer depends on the router"
    )]
    pub(crate) const fn is_sabotaged(&self, _: Sabotage) -> bool {
        false
    }

    pub(crate) const fn unseeded() -> u32 {
        0
    }
}
