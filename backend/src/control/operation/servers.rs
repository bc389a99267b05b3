//! What the steps of a real server's drain wait for, read from each director's kernel.

use isopath_api::config::Dataplane;
use isopath_api::ids::{DirectorName, RealServerId, ServiceId};
use isopath_api::observed::{Health, Observed, RealServerObserved, ServiceObserved};

use super::Operation;
use super::steps::Verdict::{Done, Waits};
use super::steps::{Facts, Judged, Verdict, everybody, names};
use super::traffic::remaining;

/// No director sends new connections to it.
pub(super) fn weight(operation: &Operation, facts: Facts<'_>) -> Judged {
    let all = everybody(operation, facts)?;
    for (name, observed) in &all {
        for (service, server) in members(operation, (name, observed), facts)? {
            // What the kernel was read without takes no connections.
            let in_kernel = server.effective_weight.unwrap_or_default();
            let weight = in_kernel.max(server.weight.into());
            if weight != 0 {
                let (id, service) = (server.real_server, service.service);
                return Ok(Waits(format!(
                    "{name} has {id} of {service} at weight {weight}"
                )));
            }
        }
    }
    let heard: Vec<DirectorName> = all.into_iter().map(|(name, _)| name.clone()).collect();
    Ok(Done(format!("weight 0 on {}", names(&heard))))
}

/// Every director sends new connections to it, where it has a weight.
pub(super) fn restored(operation: &Operation, facts: Facts<'_>) -> Judged {
    for (name, observed) in everybody(operation, facts)? {
        for (service, server) in members(operation, (name, observed), facts)? {
            let (id, service) = (server.real_server, service.service);
            let takes_none = match observed.dataplane.kind {
                Dataplane::Ipvs => server.effective_weight.unwrap_or_default() == 0,
                Dataplane::None => false,
            };
            match server.health {
                _ if server.weight == 0 => {}
                Health::Unknown | Health::Down => {
                    let health = server.health;
                    return Ok(Waits(format!("{id} of {service} is {health} on {name}")));
                }
                Health::Up if takes_none => {
                    return Ok(Waits(format!("{name} has {id} of {service} at weight 0")));
                }
                Health::Up => {}
            }
        }
    }
    Ok(Done(
        "every director finds it healthy and has its declared weight again".to_owned(),
    ))
}

/// No director has a connection to it.
pub(super) fn connections(operation: &Operation, facts: Facts<'_>) -> Judged {
    let mut left = Vec::new();
    for (name, observed) in everybody(operation, facts)? {
        let here: u64 = members(operation, (name, observed), facts)?
            .into_iter()
            .map(|(service, server)| remaining(service.service, server))
            .sum();
        if here > 0 {
            left.push(format!("{here} on {name}"));
        }
    }
    Ok(match left.is_empty() {
        true => Done("no director has a connection left".to_owned()),
        false => Waits(format!("connections left: {}", left.join(", "))),
    })
}

/// No director has it in its kernel.
pub(super) fn remove(operation: &Operation, facts: Facts<'_>) -> Judged {
    let declared = operation.target.members(&facts.cluster.declaration);
    for (name, observed) in everybody(operation, facts)? {
        for (id, server) in &declared {
            let service = service(name, observed, *id)?;
            let mut wanted = service.real_servers.iter().map(|it| it.real_server);
            if wanted.any(|it| it == *server) || service.leaving.contains(server) {
                return Ok(Waits(format!("{name} still has {server} of {id}")));
            }
            // Only a kernel that has what is wanted now has a digest.
            if observed.dataplane.kind == Dataplane::Ipvs && service.digest.is_none() {
                return Ok(Waits(format!(
                    "{name} has not read {id} from its kernel since that was told"
                )));
            }
        }
    }
    Ok(Done("no director has it any more".to_owned()))
}

/// The real servers that the operation is about as a director has them, its kernel read.
fn members<'a>(
    operation: &Operation,
    (name, observed): (&DirectorName, &'a Observed),
    facts: Facts<'_>,
) -> Result<Vec<(&'a ServiceObserved, &'a RealServerObserved)>, Verdict> {
    let declared = operation.target.members(&facts.cluster.declaration);
    let found = |(id, server): (ServiceId, RealServerId)| {
        let service = service(name, observed, id)?;
        let mut servers = service.real_servers.iter();
        let found = servers.find(|it| it.real_server == server);
        let found =
            found.ok_or_else(|| Waits(format!("{name} does not report {server} of {id}")))?;
        Ok((service, found))
    };
    declared.into_iter().map(found).collect()
}

/// A service as a director has it. Where there is a kernel that was not read yet, nothing is
/// known of the weights and connections in it.
fn service<'a>(
    name: &DirectorName,
    observed: &'a Observed,
    id: ServiceId,
) -> Result<&'a ServiceObserved, Verdict> {
    let mut services = observed.services.iter();
    let found = services.find(|it| it.service == id);
    let service = found.ok_or_else(|| Waits(format!("{name} does not report {id}")))?;
    match observed.dataplane.kind {
        Dataplane::Ipvs if service.stats.is_none() => Err(Waits(format!(
            "{name} has not read {id} from its kernel yet"
        ))),
        Dataplane::Ipvs | Dataplane::None => Ok(service),
    }
}

#[cfg(test)]
mod tests;
