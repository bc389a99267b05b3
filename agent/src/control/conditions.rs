//! What an operator should know about this director and what withdraws nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use isopath_api::ids::Vip;
use isopath_api::observed::Condition;
use isopath_api::reason::Reason;
use jiff::Timestamp;

use crate::readiness::Notice;

/// VIPs that a text names; the others are counted.
const NAMED: usize = 3;

/// The conditions that stand, by their code and what is so, without the VIPs that it is about.
#[derive(Debug, Default)]
pub(super) struct Conditions(BTreeMap<(&'static str, String), Condition>);

impl Conditions {
    /// Replaces the conditions. One that stays keeps its time, whichever VIPs it is about. What
    /// is new or over is logged.
    pub(super) fn stand<'a>(
        &mut self,
        notices: &BTreeSet<Notice>,
        findings: impl IntoIterator<Item = (Vip, &'a Reason)>,
        now: Timestamp,
    ) {
        let mut before = std::mem::take(&mut self.0);
        let mut add = |code: &'static str, what: String, text: String, remedy: String| {
            let key = (code, what);
            let since = match before.remove(&key) {
                Some(stood) => stood.since,
                None => {
                    tracing::warn!(code, remedy, "{text}");
                    now
                }
            };
            let condition = Condition {
                code: code.to_owned(),
                text,
                remedy,
                since,
            };
            self.0.insert(key, condition);
        };
        for Notice { code, text, remedy } in notices.iter().cloned() {
            add(code, text.clone(), text, remedy);
        }
        let mut vips_of: BTreeMap<(&'static str, String), (&Reason, Vec<Vip>)> = BTreeMap::new();
        for (vip, reason) in findings {
            let key = (reason.code(), reason.to_string());
            vips_of
                .entry(key)
                .or_insert((reason, Vec::new()))
                .1
                .push(vip);
        }
        for ((code, what), (reason, vips)) in vips_of {
            let text = format!("{}: {what}", list(&vips));
            let remedy = reason.remedy().unwrap_or_default().to_owned();
            add(code, what, text, remedy);
        }
        for (code, what) in before.keys() {
            tracing::info!(code, "no longer: {what}");
        }
    }

    /// All of them, in a fixed order.
    pub(super) fn observed(&self) -> Vec<Condition> {
        self.0.values().cloned().collect()
    }
}

fn list(vips: &[Vip]) -> String {
    let named: Vec<String> = vips.iter().take(NAMED).map(Vip::to_string).collect();
    let named = named.join(", ");
    match vips.len().saturating_sub(NAMED) {
        0 => named,
        others => format!("{named} and {others} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn vip(last: u8) -> Vip {
        format!("10.99.0.{last}").parse().unwrap()
    }

    #[test]
    fn what_is_so_for_many_vips_is_one_condition_and_keeps_its_time() {
        let down = Reason::InterfaceDown {
            interface: "lan".to_owned(),
        };
        let notice = Notice {
            code: Notice::TUN_MTU,
            text: "a tunnel is narrow".to_owned(),
            remedy: "clamp the MSS".to_owned(),
        };
        let mut conditions = Conditions::default();
        let texts = |conditions: &Conditions| -> Vec<String> {
            let text = |it: Condition| format!("{} {} {}", it.code, it.text, it.since);
            conditions.observed().into_iter().map(text).collect()
        };

        conditions.stand(&BTreeSet::new(), [(vip(1), &down)], at(1));
        let expected = ["interface-down 10.99.0.1: interface lan is down 1970-01-01T00:00:01Z"];
        assert_eq!(texts(&conditions), expected);

        let five = [1, 2, 3, 4, 5].map(|last| (vip(last), &down));
        conditions.stand(&[notice.clone()].into(), five, at(2));
        let expected = [
            "interface-down 10.99.0.1, 10.99.0.2, 10.99.0.3 and 2 more: interface lan is down \
             1970-01-01T00:00:01Z",
            "tun-mtu a tunnel is narrow 1970-01-01T00:00:02Z",
        ];
        assert_eq!(texts(&conditions), expected);
        let remedies: Vec<_> = conditions
            .observed()
            .into_iter()
            .map(|it| it.remedy)
            .collect();
        assert_eq!(remedies, [down.remedy().unwrap(), "clamp the MSS"]);

        conditions.stand(&[notice].into(), [], at(3));
        let expected = ["tun-mtu a tunnel is narrow 1970-01-01T00:00:02Z"];
        assert_eq!(texts(&conditions), expected);
    }
}
