//! The classic: a primary and a backup of keepalived, one VIP that moves between them by VRRP.
//!
//! The VIP is on the real servers' network, where the switch asks for it by ARP.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::plan;
use crate::process::Process;
use crate::topology::{Lab, Spec};
use crate::wait::{self, Probe};

use super::programs::{crash, keepalived};
use super::survive::{Departure, Directors, INTERFACES, PORT, power_on};

/// How long the VIP may take to move.
const SOON: Duration = Duration::from_secs(20);

/// Two directors; the first one is the primary.
pub(super) struct Classic {
    pub(super) lab: Lab,
    running: Vec<Option<Process>>,
}

impl Classic {
    /// Starts both and waits until the primary has the VIP.
    pub(super) fn start(name: &str) -> Result<Self> {
        let lab = Lab::new(Spec {
            directors: 2,
            ..Spec::new(format!("{name}-vrrp"))
        })?;
        let vip = plan::VIP;
        let route = format!("route add {vip}/32 dev servers");
        lab.switch.namespace().ip([route])?;
        let mut classic = Self {
            running: lab.directors.iter().map(|_| None).collect(),
            lab,
        };
        for index in 0..classic.running.len() {
            for (key, value) in [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/vs/sloppy_tcp", "0"),
            ] {
                classic.lab.directors[index]
                    .namespace()
                    .sysctl(key, value)?;
            }
            classic.start_keepalived(index)?;
        }
        classic.wait_for_vip(0, true)?;
        Ok(classic)
    }

    fn start_keepalived(&mut self, index: usize) -> Result<()> {
        let director = &self.lab.directors[index];
        let directory = director.directory();
        let file = directory.join("keepalived.conf");
        fs::write(&file, self.configuration(index))
            .with_context(|| format!("writing {}", file.display()))?;
        let log: PathBuf = directory.join("keepalived.log");
        let mut command = keepalived(&file, directory, "");
        let what = format!("keepalived of {}", director.name);
        let process = Process::spawn(director.namespace(), what, &log, &mut command)?;
        self.running[index] = Some(process);
        Ok(())
    }

    fn configuration(&self, index: usize) -> String {
        let (state, priority) = match index {
            0 => ("MASTER", 150),
            _ => ("BACKUP", 100),
        };
        let vip = plan::VIP;
        let servers: String = (self.lab.real_servers.iter())
            .map(|server| {
                let address = server.address();
                format!("  real_server {address} {PORT} {{\n    weight 1\n  }}\n")
            })
            .collect();
        format!(
            "global_defs {{
  router_id d{number}
}}
vrrp_instance vip {{
  state {state}
  interface lan
  virtual_router_id 51
  priority {priority}
  advert_int 1
  virtual_ipaddress {{
    {vip}/32
  }}
}}
virtual_server {vip} {PORT} {{
  lvs_sched wlc
  lvs_method DR
  protocol TCP
{servers}}}
",
            number = index + 1,
        )
    }

    /// Waits until this director has the VIP, or has given it up.
    fn wait_for_vip(&self, index: usize, wanted: bool) -> Result<()> {
        let director = &self.lab.directors[index];
        let what = format!("the VIP on {} to be {wanted}", director.name);
        wait::until(what, SOON, || {
            let lan = ["-4", "address", "show", "dev", "lan"];
            let addresses = director.namespace().ip_json(&lan)?.to_string();
            let has = addresses.contains(&format!("\"{}\"", plan::VIP));
            Ok(Probe::when(has == wanted, (), || addresses))
        })
    }
}

impl Directors for Classic {
    /// Only the primary: connections do not pass the backup.
    fn count(&self) -> usize {
        1
    }

    fn leave(&mut self, index: usize, how: Departure) -> Result<()> {
        let take = |running: &mut Option<Process>| running.take().context("it does not run");
        match how {
            Departure::Drained => {
                take(&mut self.running[index])?.stop(SOON)?;
            }
            Departure::Killed => crash(take(&mut self.running[index])?)?,
            Departure::PoweredOff => self.lab.directors[index]
                .namespace()
                .ip(INTERFACES.map(|name| format!("link set {name} down")))?,
        }
        self.wait_for_vip(1 - index, true)
    }

    fn come_back(&mut self, index: usize, from: Departure) -> Result<()> {
        match from {
            Departure::Drained | Departure::Killed => self.start_keepalived(index)?,
            Departure::PoweredOff => {
                let director = &self.lab.directors[index];
                power_on(director.namespace(), director.uplink.switch)?;
            }
        }
        self.wait_for_vip(1 - index, false)?;
        self.wait_for_vip(index, true)
    }
}
