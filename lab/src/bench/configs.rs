//! What FRR and BIRD are configured with as a director's speaker.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::plan;
use crate::topology::Timers;

use super::speaker::Form;

/// ospfd: the VIP is an address of the loopback interface, in the area or redistributed.
pub(super) fn frr_ospfd(router_id: Ipv4Addr, own: Ipv4Addr, form: Form, timers: Timers) -> String {
    let (hello, dead) = (timers.hello.as_secs(), timers.dead.as_secs());
    let vip = plan::VIP;
    let bfd = match timers.bfd {
        Some(_) => " ip ospf bfd\n ip ospf bfd profile isopath\n",
        None => "",
    };
    let (announce, filter) = match form {
        Form::Stub => (
            format!(" network {vip}/32 area 0.0.0.0\n passive-interface lo\n"),
            String::new(),
        ),
        Form::External2 => (
            " redistribute connected metric 1 metric-type 2 route-map vip\n".to_owned(),
            format!(
                "ip prefix-list vip seq 5 permit {vip}/32\nroute-map vip permit 10\n \
                 match ip address prefix-list vip\nexit\n"
            ),
        ),
    };
    format!(
        "interface eth1\n ip ospf network point-to-point\n ip ospf cost 10\n \
         ip ospf hello-interval {hello}\n ip ospf dead-interval {dead}\n{bfd}exit\n{filter}\
         router ospf\n ospf router-id {router_id}\n network {own}/24 area 0.0.0.0\n\
         {announce}exit\n"
    )
}

/// BIRD: the VIP is an address of the loopback interface, a stub of the area or exported.
pub(super) fn bird(log: &Path, router_id: Ipv4Addr, form: Form, timers: Timers) -> String {
    let (hello, dead) = (timers.hello.as_secs(), timers.dead.as_secs());
    let (bfd_protocol, bfd) = match timers.bfd {
        None => (String::new(), ""),
        Some(bfd) => {
            let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
            let protocol = format!(
                "protocol bfd {{ interface \"*\" {{ min rx interval {interval} ms; \
                 min tx interval {interval} ms; multiplier {multiplier}; }}; }}\n"
            );
            (protocol, "bfd yes; ")
        }
    };
    let vip = plan::VIP;
    let (direct, export, stub) = match form {
        Form::Stub => (
            "",
            "none",
            format!("    interface \"lo\" {vip}/32 {{ stub yes; cost 1; }};\n"),
        ),
        Form::External2 => (
            "protocol direct { ipv4; interface \"lo\"; }\n",
            "filter { if source = RTS_DEVICE then { ospf_metric2 = 1; accept; } reject; }",
            String::new(),
        ),
    };
    format!(
        "log \"{log}\" all;
router id {router_id};
protocol device {{ }}
{direct}{bfd_protocol}protocol ospf v2 {{
  ipv4 {{ import none; export {export}; }};
  area 0.0.0.0 {{
    interface \"eth1\" {{ type ptp; cost 10; hello {hello}; dead {dead}; {bfd}}};
{stub}  }};
}}
",
        log = log.display()
    )
}
