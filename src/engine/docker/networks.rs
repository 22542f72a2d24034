//! Networks and volumes: names that are not locks, so what comes back has to be looked at.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest},
    query_parameters::RemoveVolumeOptionsBuilder,
};

use super::{Docker, failure::Call, limits, lists};
use crate::{
    engine::{EngineError, Result},
    plan::{Network, NetworkWant, Volume, VolumeWant},
};

/// How long a network may be on its way: Docker reserves its range before it lists it.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Creates a network, or returns the one of that name.
///
/// Before API 1.44 a second one of a name can be made, so two creators at once may both succeed:
/// each then looks, and leaves the oldest only. Of one range Docker itself makes only one, and the
/// slower creator waits until the faster one's is listed.
pub(super) async fn create(docker: &Docker, want: &NetworkWant) -> Result<Network> {
    if let Some(existing) = named(docker, &want.name).await?.into_iter().next() {
        return Ok(existing);
    }
    let call = Call::new("create", "network", &want.name);
    let request = request(want);
    let made = docker
        .call(&call, limits::CHANGE, |client| async move { client.create_network(request).await })
        .await;
    match made {
        Ok(made) => keep_oldest(docker, &call, want, &made.id).await,
        Err(error @ (EngineError::NameTaken { .. } | EngineError::SubnetTaken { .. })) => {
            await_other(docker, &want.name).await?.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// Removes all networks of the name but the oldest, as far as they are this cluster's and unused.
async fn keep_oldest(docker: &Docker, call: &Call<'_>, want: &NetworkWant, made: &str) -> Result<Network> {
    let mut networks = named(docker, &want.name).await?.into_iter();
    let Some(oldest) = networks.next() else {
        return Err(EngineError::Busy { what: call.what(), message: "it was removed at once".into() });
    };
    for double in networks {
        if double.id == made {
            remove(docker, made).await?;
        } else if double.labels == want.labels {
            // Its maker may be at it, too; what is left the next plan removes.
            let _ = remove(docker, &double.id).await;
        }
    }
    Ok(oldest)
}

/// The network that somebody else is making, once it is listed.
async fn await_other(docker: &Docker, name: &str) -> Result<Option<Network>> {
    let deadline = Instant::now() + ON_ITS_WAY;
    loop {
        let found = named(docker, name).await?.into_iter().next();
        if found.is_some() || Instant::now() > deadline {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The networks of exactly this name, oldest first; Docker's filter also finds names that contain
/// it.
async fn named(docker: &Docker, name: &str) -> Result<Vec<Network>> {
    let filters = [("name".to_owned(), vec![name.to_owned()])].into();
    let mut networks = lists::networks_with(docker, &filters).await?;
    networks.retain(|network| network.name == name);
    networks.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(networks)
}

fn request(want: &NetworkWant) -> NetworkCreateRequest {
    let NetworkWant { name, subnet, gateway, ip_range, labels } = want;
    NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.to_string()),
                gateway: Some(gateway.to_string()),
                ip_range: Some(ip_range.to_string()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        enable_ipv6: Some(false),
        labels: Some(labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// Removes a network; fine if it is gone.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let call = Call::new("remove", "network", id);
    gone(docker.call(&call, limits::CHANGE, |client| async move { client.remove_network(id).await }).await)
}

/// Creates a volume, or returns the one of that name with the labels it has.
pub(super) async fn create_volume(docker: &Docker, want: &VolumeWant) -> Result<Volume> {
    let VolumeWant { name, labels } = want;
    let request = VolumeCreateRequest {
        name: Some(name.clone()),
        driver: Some("local".into()),
        driver_opts: Some(HashMap::new()),
        labels: Some(labels.clone().into_iter().collect()),
        ..VolumeCreateRequest::default()
    };
    let call = Call::new("create", "volume", name);
    let made = docker
        .call(&call, limits::CHANGE, |client| async move { client.create_volume(request).await })
        .await?;
    Ok(lists::volume(made))
}

/// Removes a volume; fine if it is gone.
pub(super) async fn remove_volume(docker: &Docker, name: &str) -> Result<()> {
    let options = RemoveVolumeOptionsBuilder::new().build();
    let call = Call::new("remove", "volume", name);
    gone(
        docker
            .call(
                &call,
                limits::CHANGE,
                |client| async move { client.remove_volume(name, Some(options)).await },
            )
            .await,
    )
}

/// What is not there need not be removed.
pub(super) fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(EngineError::NotFound { .. }) => Ok(()),
        result => result,
    }
}
