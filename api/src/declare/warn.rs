//! What works but is unwise.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fault::{FileFault, Places};

use super::{
    CheckKind, Declaration, Forwarding, Profile, Scheduler, SchedulerFlag, ServiceSpec, VipSpec,
};

/// Something that works but is unwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// Its name.
    pub code: WarningCode,
    /// Where, as a JSON pointer (RFC 6901).
    pub at: String,
    /// What happens because of it, and what would be better.
    pub text: String,
}

impl Warning {
    /// The warning at its line of the TOML document that declares it.
    pub fn in_toml(&self, places: &Places<'_>) -> FileFault {
        places.fault(&self.at, format!("warning: {}: {}", self.code, self.text))
    }
}

/// The name of a [`Warning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WarningCode {
    /// Directors share a VIP and are not told to share its connections.
    StatefulBehindEcmp,
    /// Directors share a service whose scheduler sends one client to different real servers.
    SchedulerNotShared,
    /// Directors share a service whose clients each of them remembers by itself.
    PersistenceBehindEcmp,
    /// The weights of an `mh` service differ.
    UnequalWeightsWithMh,
    /// Connections are limited by each director by itself.
    ThresholdsWithMh,
    /// `mh` gives no real server to the clients of one that is down.
    MhWithoutFallback,
    /// The real servers of a NAT service have one gateway, and directors take turns.
    NatWithBackup,
    /// Nobody notices a dead real server.
    Unchecked,
}

impl WarningCode {
    /// The name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StatefulBehindEcmp => "stateful-behind-ecmp",
            Self::SchedulerNotShared => "scheduler-not-shared",
            Self::PersistenceBehindEcmp => "persistence-behind-ecmp",
            Self::UnequalWeightsWithMh => "unequal-weights-with-mh",
            Self::ThresholdsWithMh => "thresholds-with-mh",
            Self::MhWithoutFallback => "mh-without-fallback",
            Self::NatWithBackup => "nat-with-backup",
            Self::Unchecked => "unchecked",
        }
    }
}

impl std::fmt::Display for WarningCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which directors announce a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcers {
    /// Several at the same cost, so that the switches spread its clients over them.
    Shared,
    /// One at a time: the others at a higher cost.
    InTurn,
    /// One.
    One,
}

pub(super) fn declaration(declaration: &Declaration) -> Vec<Warning> {
    let announcers = |vip: &VipSpec| {
        let costs = declaration.director.iter().map(|it| vip.cost_at(&it.name));
        let lowest = costs.clone().min();
        match (
            costs.len(),
            costs.filter(|cost| Some(*cost) == lowest).count(),
        ) {
            (0 | 1, _) => Announcers::One,
            (_, 0 | 1) => Announcers::InTurn,
            (_, _) => Announcers::Shared,
        }
    };
    all(
        declaration.lvs().profile,
        &declaration.vip,
        &declaration.service,
        announcers,
    )
}

/// The warnings of a list of VIPs and one of services.
pub(crate) fn all(
    profile: Profile,
    vips: &[VipSpec],
    services: &[impl Borrow<ServiceSpec>],
    announcers: impl Fn(&VipSpec) -> Announcers,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, vip) in vips.iter().enumerate() {
        let shared = announcers(vip) == Announcers::Shared;
        if shared && profile == Profile::Stateful {
            let text = format!(
                "several directors announce {} at the same cost, but each keeps its connections \
                 to itself: a change of the switches' paths breaks some; profile \"stateless\" \
                 keeps them",
                vip.address
            );
            warnings.push(Warning {
                code: WarningCode::StatefulBehindEcmp,
                at: format!("/vip/{index}"),
                text,
            });
        }
    }
    for (index, service) in services.iter().map(Borrow::borrow).enumerate() {
        let vip = vips.iter().find(|vip| vip.address == service.vip);
        let announcers = vip.map_or(Announcers::One, &announcers);
        of_service(service, announcers, &mut |code, key, text| {
            let at = format!("/service/{index}{key}");
            let text = format!("{}: {text}", service.id());
            warnings.push(Warning { code, at, text });
        });
    }
    warnings
}

fn of_service(
    service: &ServiceSpec,
    announcers: Announcers,
    warn: &mut impl FnMut(WarningCode, &str, &str),
) {
    let shared = announcers == Announcers::Shared;
    let mh = service.scheduler == Scheduler::Mh;
    if shared && !mh {
        let text = format!(
            "{} sends one client to different real servers on different directors; a change of \
             the switches' paths breaks its connections, with mh it does not",
            service.scheduler
        );
        warn(WarningCode::SchedulerNotShared, "/scheduler", &text);
    }
    if shared && service.persistence.is_some() {
        let text = "each director remembers persistent clients by itself; mh without mh-port \
                    keeps a client's real server on all of them";
        warn(WarningCode::PersistenceBehindEcmp, "/persistence", text);
    }
    if mh && !service.flags().contains(&SchedulerFlag::MhFallback) {
        let text = "without mh-fallback the clients of a real server that is down are refused";
        warn(WarningCode::MhWithoutFallback, "/flags", text);
    }
    let servers = || service.real_server.iter();
    // Weight 0 only takes a real server out for a while: its place stays.
    let weights: BTreeSet<u16> = servers().map(|it| it.weight).filter(|it| *it > 0).collect();
    if mh && shared && weights.len() > 1 {
        let text = "the weights differ: a change of one moves clients of all the others; with \
                    equal weights only a real server's own clients ever move";
        warn(WarningCode::UnequalWeightsWithMh, "/real_server", text);
    }
    if mh && shared && servers().any(|it| it.upper_threshold > 0) {
        let text = "a connection limit counts on each director by itself: they disagree about \
                    where a client goes as soon as one of them has reached it";
        warn(WarningCode::ThresholdsWithMh, "/real_server", text);
    }
    if service.forwarding == Forwarding::Nat && announcers == Announcers::InTurn {
        let text = "when a backup takes over, the real servers' gateway has to become that \
                    director, or replies are lost";
        warn(WarningCode::NatWithBackup, "/forwarding", text);
    }
    if service.check.kind == CheckKind::None {
        let text = "nothing is checked: a real server that is down keeps its share of clients, \
                    and the VIP is announced without any";
        warn(WarningCode::Unchecked, "/check", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two directors that share a VIP, and what is inserted into VIP, service and real server.
    fn codes(top: &str, vip: &str, service: &str, server: &str) -> Vec<String> {
        let text = format!(
            "{top}\n[[director]]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\n\
             [[director]]\nname = \"d2\"\nrouter_id = \"10.0.2.2\"\n\
             [[vip]]\naddress = \"10.99.0.1\"\n{vip}\n\
             [[service]]\nvip = \"10.99.0.1\"\nprotocol = \"tcp\"\nport = 80\n{service}\n\
             [[service.real_server]]\naddress = \"10.1.0.11\"\n\
             [[service.real_server]]\naddress = \"10.1.0.12\"\n{server}\n"
        );
        let declared: Declaration = toml::from_str(&text).unwrap();
        assert_eq!(declared.validate(), [], "{text}");
        let warnings = declared.warnings();
        let named = |it: &Warning| format!("{} {}", it.code, it.at);
        warnings.iter().map(named).collect()
    }

    #[test]
    fn each_unwise_thing_has_its_name_and_place() {
        let tcp = "check = { type = \"tcp\" }";
        let with = |key: &str| format!("{tcp}\n{key}");
        let wlc = with("scheduler = \"wlc\"");
        let backup = "director_cost = { d2 = 100 }";
        let cases: &[(&str, &str, &str, &str, &[&str])] = &[
            ("", "", tcp, "", &[]),
            ("", "", tcp, "weight = 0", &[]),
            ("", backup, &wlc, "weight = 3", &[]),
            (
                "",
                "",
                &wlc,
                "",
                &["scheduler-not-shared /service/0/scheduler"],
            ),
            (
                "lvs = { profile = \"stateful\" }",
                "",
                tcp,
                "",
                &["stateful-behind-ecmp /vip/0"],
            ),
            (
                "",
                "",
                &with("persistence = { timeout = \"50s\" }"),
                "",
                &["persistence-behind-ecmp /service/0/persistence"],
            ),
            (
                "",
                "",
                &with("flags = [\"mh-port\"]"),
                "",
                &["mh-without-fallback /service/0/flags"],
            ),
            (
                "",
                "",
                tcp,
                "weight = 3",
                &["unequal-weights-with-mh /service/0/real_server"],
            ),
            (
                "",
                "",
                tcp,
                "upper_threshold = 9",
                &["thresholds-with-mh /service/0/real_server"],
            ),
            (
                "",
                backup,
                &with("forwarding = \"nat\""),
                "",
                &["nat-with-backup /service/0/forwarding"],
            ),
            (
                "",
                "",
                "check = { type = \"none\" }",
                "",
                &["unchecked /service/0/check"],
            ),
        ];
        for (top, vip, service, server, expected) in cases {
            let found = codes(top, vip, service, server);
            assert_eq!(found, *expected, "{top} {vip} {service} {server}");
        }
    }

    #[test]
    fn the_codes_are_those_of_the_json() {
        for code in [WarningCode::StatefulBehindEcmp, WarningCode::Unchecked] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
