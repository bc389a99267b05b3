//! The director's file: read by both of its daemons.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::AuthConfig;
use crate::declare::{
    self, Announcers, Lvs, LvsSpec, Profile, ServiceSpec, VipSpec, Warning, validate_kinds,
    validate_lvs, validate_services, validate_vips,
};
use crate::fault::{Fault, FileFaults, parse_toml};
use crate::ids::{AreaId, ClusterName, DirectorName, RouterId};
use crate::sections;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorFile {
    /// The director itself.
    pub director: DirectorConfig,
    /// OSPF.
    pub ospf: OspfConfig,
    /// Where the desired state comes from; without it, from this file.
    #[serde(default)]
    pub controller: Option<ControllerConfig>,
    /// The settings that all services share; only without a controller.
    #[serde(default)]
    pub lvs: Option<LvsSpec>,
    /// The VIPs; only without a controller.
    #[serde(default)]
    pub vip: Vec<VipSpec>,
    /// The services; only without a controller. Whoever needs one for long shares it.
    #[serde(default, deserialize_with = "shared")]
    pub service: Vec<Arc<ServiceSpec>>,
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<ServiceSpec>>, D::Error> {
    let services = Vec::deserialize(deserializer)?;
    Ok(services.into_iter().map(Arc::new).collect())
}

impl DirectorFile {
    /// Reads the text of the file called `file`.
    ///
    /// # Errors
    /// Every fault with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileFaults> {
        Self::parse_with(file, text, |_| Vec::new())
    }

    /// The same, and lets `further` look for what only a caller can see, such as what stands in
    /// the files that this one names.
    ///
    /// # Errors
    /// Every fault with its line and column.
    pub fn parse_with(
        file: &str,
        text: &str,
        further: impl FnOnce(&Self) -> Vec<Fault>,
    ) -> Result<Self, FileFaults> {
        let validate = |parsed: &Self| {
            let mut faults = parsed.validate();
            faults.extend(further(parsed));
            faults
        };
        match sections::parse(text) {
            None => parse_toml(file, text, validate),
            Some(parsed) => match validate(&parsed) {
                faults if faults.is_empty() => Ok(parsed),
                // Only the whole of it says where they are.
                faults => parse_toml(file, text, |_: &Self| faults),
            },
        }
    }

    /// The settings that all services of this director share. Its own file does not know of other
    /// directors.
    pub fn lvs(&self) -> Lvs {
        self.lvs.unwrap_or_default().resolve(1)
    }

    /// Everything that works but is unwise.
    pub fn warnings(&self) -> Vec<Warning> {
        let profile = self.lvs().profile;
        let announcers = match profile {
            Profile::Stateless => Announcers::Shared,
            Profile::Stateful => Announcers::One,
        };
        declare::warnings(profile, &self.vip, &self.service, |vip| {
            // Other directors have other costs.
            match vip.director_cost.is_empty() {
                true => announcers,
                false => Announcers::InTurn,
            }
        })
    }

    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.director.agent_hold.is_zero() {
            faults.push(Fault::new("/director/agent_hold", "a time above 0", "0s"));
        }
        if self.director.router_id.0.is_unspecified() {
            faults.push(Fault::new(
                "/director/router_id",
                "a router id other than 0.0.0.0",
                "it",
            ));
        }
        self.ospf.validate(&mut faults);
        self.validate_on_exit(&mut faults);
        if let Some(controller) = &self.controller {
            controller.validate(&mut faults);
            for (key, count) in [("vip", self.vip.len()), ("service", self.service.len())] {
                if count > 0 {
                    faults.push(Fault::new(
                        format!("/{key}/0"),
                        format_args!("no [[{key}]] beside [controller], which declares them"),
                        format_args!("{count}"),
                    ));
                }
            }
        }
        if let Some(lvs) = &self.lvs {
            if self.controller.is_some() {
                let expected = "no [lvs] beside [controller], which declares it";
                faults.push(Fault::new("/lvs", expected, "it"));
            }
            faults.extend(validate_lvs(lvs));
        }
        faults.extend(validate_vips(&self.vip));
        faults.extend(validate_kinds(&self.vip, self.ospf.area_type));
        faults.extend(validate_services(&self.vip, &self.service));
        faults
    }

    /// A speaker that is gone cannot withdraw, so that it is the switch that bounds the time of an
    /// announcement without a word about health: by the grace period and the dead interval after
    /// it, which have to fit into `agent_hold`.
    fn validate_on_exit(&self, faults: &mut Vec<Fault>) {
        if self.director.on_exit == OnExit::Withdraw {
            return;
        }
        let hold = self.director.agent_hold;
        let bounds = Duration::from_secs(1)..=Duration::from_secs(1800);
        if !bounds.contains(&hold) {
            faults.push(Fault::new(
                "/director/agent_hold",
                "a time from 1s to 30m with on_exit = \"keep\"",
                humantime::format_duration(hold),
            ));
        }
        for (index, interface) in self.ospf.interface.iter().enumerate() {
            if interface.dead_interval + SHORTEST_GRACE > hold {
                let hold = humantime::format_duration(hold);
                let grace = humantime::format_duration(SHORTEST_GRACE);
                faults.push(Fault::new(
                    format!("/ospf/interface/{index}/dead_interval"),
                    format_args!(
                        "{grace} less than agent_hold ({hold}) or below, with on_exit = \"keep\""
                    ),
                    humantime::format_duration(interface.dead_interval),
                ));
            }
        }
    }
}

/// `[director]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorConfig {
    /// Its name.
    pub name: DirectorName,
    /// Its OSPF router id.
    pub router_id: RouterId,
    /// Where the daemons keep what must outlive them.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The agent's Unix socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// The speaker's Unix socket.
    #[serde(default = "default_speaker_socket")]
    pub speaker_socket: PathBuf,
    /// How long the speaker keeps the announced set without a word from the agent.
    #[serde(default = "default_agent_hold", with = "crate::duration")]
    pub agent_hold: Duration,
    /// What becomes of the announced set when the speaker is told to stop.
    #[serde(default)]
    pub on_exit: OnExit,
    /// Where the agent serves its Prometheus metrics; nowhere when absent.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// What the agent programs.
    #[serde(default)]
    pub dataplane: Dataplane,
    /// The dummy interface that carries the VIPs; the agent makes it.
    #[serde(default = "default_vip_interface")]
    pub vip_interface: String,
}

fn default_state_dir() -> PathBuf {
    "/var/lib/isopath".into()
}

fn default_socket() -> PathBuf {
    "/run/isopath/agent.sock".into()
}

fn default_speaker_socket() -> PathBuf {
    "/run/isopath/speaker.sock".into()
}

fn default_agent_hold() -> Duration {
    Duration::from_secs(10)
}

fn default_vip_interface() -> String {
    "isopath".to_owned()
}

/// The shortest time that a restart is worth asking for: the agent speaks once a second.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// What a speaker that gets SIGTERM does about what it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// Withdraw it, and leave when the switches have let go.
    #[default]
    Withdraw,
    /// Ask the switches to keep it until the next start (RFC 3623), so that it is gone when
    /// `agent_hold` has passed without one; withdraw it where they cannot.
    Keep,
}

/// What the agent programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// The VIPs' interface, sysctls and IPVS.
    #[default]
    Ipvs,
    /// Nothing: check and announce only.
    None,
}

/// `[controller]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerConfig {
    /// Its base URL, such as `http://10.0.0.5:8080`.
    pub url: String,
    /// The cluster this director belongs to.
    pub cluster: ClusterName,
    /// The file that holds the agent's token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Who the agent is instead: `"enrolled"`, what `isopath-agent enroll` has kept.
    #[serde(default)]
    pub identity: Option<AgentIdentityKind>,
    /// The authority that vouches for the controller, in PEM. Without it that is the one of the
    /// enrolment, or those that the system trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// What an agent shows the controller other than a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentIdentityKind {
    /// The certificate of its enrolment.
    Enrolled,
}

impl ControllerConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        let expected = "`token_file`, or identity = \"enrolled\"";
        match (&self.token_file, self.identity) {
            (Some(_), None) => {}
            (None, Some(_)) if self.url.starts_with("https://") => {}
            (None, Some(_)) => faults.push(Fault::new(
                "/controller/url",
                "an https:// URL with identity = \"enrolled\"",
                format_args!("{:?}", self.url),
            )),
            (Some(_), Some(_)) => {
                faults.push(Fault::new("/controller/identity", expected, "both"));
            }
            (None, None) => faults.push(Fault::new("/controller", expected, "neither")),
        }
    }
}

/// `[ospf]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OspfConfig {
    /// The area.
    #[serde(default = "default_area")]
    pub area: AreaId,
    /// The area's type.
    #[serde(default)]
    pub area_type: AreaType,
    /// When a VIP that comes and goes is held withdrawn.
    #[serde(default)]
    pub hold_down: HoldDownConfig,
    /// The uplinks, at least one.
    #[serde(default)]
    pub interface: Vec<InterfaceConfig>,
}

fn default_area() -> AreaId {
    AreaId(std::net::Ipv4Addr::UNSPECIFIED)
}

impl OspfConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.interface.is_empty() {
            faults.push(Fault::new(
                "/ospf",
                "at least one [[ospf.interface]]",
                "none",
            ));
        }
        if self.area_type != AreaType::Normal && self.area.0.is_unspecified() {
            let expected = "\"normal\" for the backbone area 0.0.0.0 (RFC 2328 §3.6)";
            faults.push(Fault::new("/ospf/area_type", expected, "another type"));
        }
        self.hold_down.validate(faults);
        for (index, interface) in self.interface.iter().enumerate() {
            interface.validate(index, &self.interface[..index], faults);
        }
    }
}

/// `hold_down`: a VIP that was withdrawn so often in that time stays withdrawn until it has not
/// been withdrawn for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldDownConfig {
    /// Withdrawals within `within` that are too many; 0 holds nothing down.
    #[serde(default = "default_withdrawals")]
    pub withdrawals: u16,
    /// The time in which they are counted.
    #[serde(default = "default_within", with = "crate::duration")]
    pub within: Duration,
    /// How long it has to be wanted without a break.
    #[serde(default = "default_hold", with = "crate::duration")]
    pub hold: Duration,
}

impl Default for HoldDownConfig {
    fn default() -> Self {
        Self {
            withdrawals: default_withdrawals(),
            within: default_within(),
            hold: default_hold(),
        }
    }
}

fn default_withdrawals() -> u16 {
    10
}

fn default_within() -> Duration {
    Duration::from_secs(60)
}

fn default_hold() -> Duration {
    Duration::from_secs(30)
}

impl HoldDownConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.withdrawals > 1000 {
            faults.push(Fault::new(
                "/ospf/hold_down/withdrawals",
                "a number up to 1000; 0 holds nothing down",
                self.withdrawals,
            ));
        }
        for (key, value) in [("within", self.within), ("hold", self.hold)] {
            let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
            if !bounds.contains(&value) {
                faults.push(Fault::new(
                    format!("/ospf/hold_down/{key}"),
                    "a time from 1s to 24h",
                    humantime::format_duration(value),
                ));
            }
        }
    }
}

/// The type of the area (RFC 2328 §3.6, RFC 3101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AreaType {
    /// With AS-external-LSAs.
    #[default]
    Normal,
    /// Without them.
    Stub,
    /// With type 7 LSAs instead.
    Nssa,
}

/// `[[ospf.interface]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceConfig {
    /// The kernel's name of the interface.
    pub name: String,
    /// The network type.
    #[serde(default)]
    pub network: NetworkType,
    /// The interface whose address a point-to-point link borrows, such as `lo`. A link that has
    /// only addresses with prefix length 32 is unnumbered, too, and uses the first of those.
    #[serde(default)]
    pub unnumbered: Option<String>,
    /// HelloInterval, whole seconds.
    #[serde(default = "default_hello", with = "crate::duration")]
    pub hello_interval: Duration,
    /// RouterDeadInterval, whole seconds.
    #[serde(default = "default_dead", with = "crate::duration")]
    pub dead_interval: Duration,
    /// RxmtInterval.
    #[serde(default = "default_second", with = "crate::duration")]
    pub retransmit_interval: Duration,
    /// The interface's cost (1 to 65535), for the link to its own network.
    #[serde(default = "default_cost")]
    pub cost: u16,
    /// The switch's MinLSArrival: how soon it takes a second instance of an LSA.
    #[serde(default = "default_second", with = "crate::duration")]
    pub peer_min_arrival: Duration,
    /// The MTU put into database description packets; the interface's own when absent. BIRD
    /// wants it equal to its own or 0.
    #[serde(default)]
    pub advertise_mtu: Option<u16>,
    /// Packet authentication; none when absent.
    #[serde(default)]
    pub auth: Option<AuthConfig>,
    /// BFD with the neighbours of this interface; none when absent.
    #[serde(default)]
    pub bfd: Option<BfdConfig>,
}

fn default_hello() -> Duration {
    Duration::from_secs(10)
}

fn default_dead() -> Duration {
    Duration::from_secs(40)
}

fn default_second() -> Duration {
    Duration::from_secs(1)
}

fn default_cost() -> u16 {
    10
}

impl InterfaceConfig {
    fn validate_lender(&self, lender: &str, at: String, faults: &mut Vec<Fault>) {
        if self.network != NetworkType::PointToPoint {
            let expected = "network \"point-to-point\" with unnumbered";
            faults.push(Fault::new(at, expected, "\"broadcast\""));
        } else if !is_interface_name(lender) || lender == self.name {
            let expected = "the name of another interface";
            faults.push(Fault::new(at, expected, format_args!("{lender:?}")));
        }
    }

    fn validate(&self, index: usize, earlier: &[Self], faults: &mut Vec<Fault>) {
        let at = |key: &str| format!("/ospf/interface/{index}/{key}");
        if !is_interface_name(&self.name) {
            let expected = "an interface name of 1 to 15 characters";
            faults.push(Fault::new(
                at("name"),
                expected,
                format_args!("{:?}", self.name),
            ));
        }
        if let Some(lender) = &self.unnumbered {
            self.validate_lender(lender, at("unnumbered"), faults);
        }
        if earlier.iter().any(|other| other.name == self.name) {
            faults.push(Fault::new(
                at("name"),
                "each interface once",
                format_args!("{:?} again", self.name),
            ));
        }
        let whole = |duration: Duration| duration.subsec_nanos() == 0 && !duration.is_zero();
        if !whole(self.hello_interval) || self.hello_interval > Duration::from_secs(65535) {
            let found = humantime::format_duration(self.hello_interval);
            faults.push(Fault::new(
                at("hello_interval"),
                "whole seconds from 1s",
                found,
            ));
        }
        if !whole(self.dead_interval) || self.dead_interval <= self.hello_interval {
            let found = humantime::format_duration(self.dead_interval);
            faults.push(Fault::new(
                at("dead_interval"),
                "whole seconds, more than hello_interval",
                found,
            ));
        }
        let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
        if !bounds.contains(&self.retransmit_interval) {
            let found = humantime::format_duration(self.retransmit_interval);
            faults.push(Fault::new(
                at("retransmit_interval"),
                "a time from 100ms to 60s",
                found,
            ));
        }
        if self.peer_min_arrival > Duration::from_secs(60) {
            let found = humantime::format_duration(self.peer_min_arrival);
            faults.push(Fault::new(
                at("peer_min_arrival"),
                "a time of at most 60s",
                found,
            ));
        }
        if self.cost == 0 {
            faults.push(Fault::new(at("cost"), "a cost from 1 to 65535", 0));
        }
        if let Some(auth) = &self.auth {
            auth.validate(&at("auth"), faults);
        }
        if let Some(bfd) = &self.bfd {
            for (key, value) in [("min_tx", bfd.min_tx), ("min_rx", bfd.min_rx)] {
                let bounds = Duration::from_millis(10)..=Duration::from_secs(60);
                if !bounds.contains(&value) {
                    let found = humantime::format_duration(value);
                    faults.push(Fault::new(
                        at(&format!("bfd/{key}")),
                        "a time from 10ms to 60s",
                        found,
                    ));
                }
            }
            if bfd.multiplier == 0 {
                faults.push(Fault::new(
                    at("bfd/multiplier"),
                    "a number from 1 to 255",
                    0,
                ));
            }
        }
    }
}

/// Whether the kernel could call an interface so. IFNAMSIZ in linux/if.h is 16, the NUL included.
pub(crate) fn is_interface_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 15 && !name.contains(['/', ' '])
}

/// The type of an OSPF network (RFC 2328 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkType {
    /// One neighbour, no designated router.
    #[default]
    PointToPoint,
    /// A segment with a designated router, which we never are.
    Broadcast,
}

/// `bfd` of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BfdConfig {
    /// Desired Min TX Interval once Up.
    #[serde(with = "crate::duration")]
    pub min_tx: Duration,
    /// Required Min RX Interval.
    #[serde(with = "crate::duration")]
    pub min_rx: Duration,
    /// Detect Mult.
    pub multiplier: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[director]
name = "d1"
router_id = "10.0.1.2"
agent_hold = "10s"
[ospf]
[[ospf.interface]]
name = "eth1"
hello_interval = "1s"
dead_interval = "4s"
bfd = { min_tx = "50ms", min_rx = "50ms", multiplier = 3 }
"#;

    #[test]
    fn a_small_file_is_read_with_its_defaults() {
        let file = DirectorFile::parse("d1.toml", GOOD).unwrap();
        assert_eq!(file.director.agent_hold, Duration::from_secs(10));
        assert_eq!(file.ospf.interface[0].network, NetworkType::PointToPoint);
        assert_eq!(file.director.dataplane, Dataplane::Ipvs);
    }

    #[test]
    fn a_vip_is_announced_by_a_kind_of_lsa_that_its_area_can_have() {
        let cases = [
            ("", "stub", None),
            ("", "external-1", None),
            ("", "external-2", None),
            ("", "nssa", Some("type 7 LSAs are for an NSSA")),
            ("stub", "stub", None),
            ("stub", "external-2", Some("a stub area has no type 5")),
            ("stub", "nssa", Some("type 7 LSAs are for an NSSA")),
            ("nssa", "stub", None),
            ("nssa", "external-1", Some("in the place of type 5")),
            ("nssa", "nssa", None),
        ];
        for (area, kind, refused) in cases {
            let area = match area {
                "" => String::new(),
                kind => format!("area = \"0.0.0.1\"\narea_type = \"{kind}\"\n"),
            };
            let text = GOOD.replacen("[ospf]\n", &format!("[ospf]\n{area}"), 1);
            let vip = "[[vip]]\naddress = \"10.99.0.1\"\n";
            let text = format!("{text}{vip}announce = {{ as = \"{kind}\", cost = 1 }}\n");
            let faults = match DirectorFile::parse("d1.toml", &text) {
                Ok(_) => None,
                Err(faults) => Some(faults.to_string()),
            };
            match (&faults, refused) {
                (None, None) => {}
                (Some(faults), Some(words)) => {
                    let line = text.lines().count();
                    let place = format!("d1.toml:{line}:19: ");
                    assert!(faults.starts_with(&place), "{faults} is not at {place}");
                    assert!(faults.contains(words), "{faults} does not say {words}");
                }
                (Some(_), None) | (None, Some(_)) => {
                    panic!("{kind} in {area:?}: {faults:?}, expected {refused:?}")
                }
            }
        }
    }

    #[test]
    fn each_fault_has_its_line() {
        let cases = [
            (
                "agent_hold = \"10s\"",
                "agent_hold = \"soon\"",
                "d1.toml:5:14: ",
                "\"soon\"",
            ),
            ("agent_hold", "agent_hodl", "d1.toml:5:1: ", "agent_hodl"),
            ("10.0.1.2", "0.0.0.0", "d1.toml:4:13: ", "0.0.0.0"),
            ("\"1s\"", "\"1500ms\"", "d1.toml:9:18: ", "whole seconds"),
            (
                "\"4s\"",
                "\"1s\"",
                "d1.toml:10:17: ",
                "more than hello_interval",
            ),
            (
                "name = \"eth1\"",
                "name = \"eth1\"\nunnumbered = \"eth1\"",
                "d1.toml:9:14: ",
                "another interface",
            ),
            (
                "name = \"eth1\"",
                "name = \"eth1\"\nunnumbered = \"lo\"\nnetwork = \"broadcast\"",
                "d1.toml:9:14: ",
                "point-to-point",
            ),
            (
                "[ospf]",
                "[ospf]\nhold_down = { within = \"500ms\" }",
                "d1.toml:7:24: ",
                "from 1s to 24h",
            ),
            (
                "multiplier = 3",
                "multiplier = 0",
                "d1.toml:11:",
                "from 1 to 255",
            ),
            (
                "agent_hold = \"10s\"",
                "agent_hold = \"3s\"\non_exit = \"keep\"",
                "d1.toml:11:17: ",
                "2s less than agent_hold (3s)",
            ),
            (
                "agent_hold = \"10s\"",
                "agent_hold = \"31m\"\non_exit = \"keep\"",
                "d1.toml:5:14: ",
                "from 1s to 30m",
            ),
            (
                "agent_hold = \"10s\"",
                "on_exit = \"leave\"",
                "d1.toml:5:11: ",
                "leave",
            ),
        ];
        for (from, to, place, words) in cases {
            let text = GOOD.replacen(from, to, 1);
            let faults = DirectorFile::parse("d1.toml", &text)
                .unwrap_err()
                .to_string();
            assert!(
                faults.starts_with(place),
                "{to}: {faults} is not at {place}"
            );
            assert!(
                faults.contains(words),
                "{to}: {faults} does not say {words}"
            );
        }
    }
}
