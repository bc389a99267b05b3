//! What the clients of the control socket ask.

use std::time::Instant;

use isopath_api::speaker::{OverrideAction, Reply, Request};

use super::Speaker;
use crate::upgrade::UpgradeError;
use crate::wanted::{ClientId, Refusal};

impl Speaker {
    /// Reads a client's requests and answers them; whether there may be more.
    pub(super) fn serve(&mut self, now: Instant, id: ClientId) -> bool {
        self.control.flush(id);
        let received = self.control.receive(id);
        for request in received.requests {
            if !self.control.is_listening(id) {
                break;
            }
            let reply = match request {
                Ok(request) => self.answer(now, id, request),
                Err(reply) => Some(reply),
            };
            if let Some(reply) = reply {
                self.control.reply(id, &reply);
            }
        }
        received.more
    }

    /// Answers a request, but for one whose answer comes later.
    fn answer(&mut self, now: Instant, id: ClientId, request: Request) -> Option<Reply> {
        let reply = match request {
            Request::Announce {
                set,
                withheld,
                hold_ms,
            } => {
                let pid = self.control.pid(id);
                let result = self.wanted.announce(now, id, pid, &set, withheld, hold_ms);
                self.decide(now);
                result_reply(result)
            }
            Request::Heartbeat => result_reply(self.wanted.heartbeat(id)),
            Request::Override { vip, action, text } => {
                let result = self.wanted.set_override(vip, action, text);
                if let (Ok(()), OverrideAction::Announce { .. }) = (&result, action) {
                    self.hold_down.forgive(vip);
                }
                self.kept.set_overrides(self.wanted.overrides());
                self.decide(now);
                result_reply(result)
            }
            Request::Status => {
                self.paths.ask();
                Reply::Status(Box::new(self.status(now)))
            }
            Request::Neighbors => Reply::Neighbors {
                neighbors: self.neighbors(now),
                interfaces: self.interface_views(now),
            },
            Request::Lsdb => Reply::Lsdb {
                lsas: self.lsas(now),
            },
            Request::Paths { host } => {
                self.paths.ask();
                Reply::Paths(Box::new(self.all_paths(host)))
            }
            Request::Subscribe => {
                self.control.subscribe(id);
                Reply::Status(Box::new(self.status(now)))
            }
            Request::Upgrade { binary } => {
                let begun = match binary {
                    Some(_) if !self.control.is_root(id) => Err(UpgradeError::NotRoot),
                    binary => self.begin_upgrade(now, Some(id), binary),
                };
                if let Err(error) = begun {
                    self.refuse_upgrade(Some(id), &error);
                }
                return None;
            }
        };
        // Any request is a word of the owner's, and may end its silence.
        self.wanted.heard(now, id);
        self.touched = true;
        Some(reply)
    }
}

fn result_reply(result: Result<(), Refusal>) -> Reply {
    match result {
        Ok(()) => Reply::Ok,
        Err(refusal) => Reply::Error {
            message: refusal.to_string(),
        },
    }
}
