//! Networks and volumes: names that are not locks, so what comes back has to be looked at.

use std::collections::HashMap;

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest},
    query_parameters::RemoveVolumeOptionsBuilder,
};

use super::{Docker, failure::Call, limits, lists};
use crate::{
    engine::{EngineError, Result},
    plan::{Network, NetworkWant, Volume, VolumeWant},
};

/// Creates a network, or returns the one of that name.
///
/// Before API 1.44 a second one of a name can be made, so two creators at once may both succeed:
/// whoever then sees an older one than its own takes its own back.
pub(super) async fn create(docker: &Docker, want: &NetworkWant) -> Result<Network> {
    if let Some(existing) = oldest(docker, &want.name).await? {
        return Ok(existing);
    }
    let call = Call::new("create", "network", &want.name);
    let request = request(want);
    let made = docker
        .call(&call, limits::CHANGE, |client| async move { client.create_network(request).await })
        .await;
    let found = oldest(docker, &want.name).await?;
    match (made, found) {
        (Ok(made), Some(found)) => {
            if found.id != made.id {
                remove(docker, &made.id).await?;
            }
            Ok(found)
        }
        (Ok(_), None) => {
            Err(EngineError::Busy { what: call.what(), message: "it was removed at once".into() })
        }
        // Whoever was faster holds the name, and with it the subnet.
        (Err(EngineError::NameTaken { .. } | EngineError::SubnetTaken { .. }), Some(found)) => Ok(found),
        (Err(error), _) => Err(error),
    }
}

/// The oldest network of exactly this name; Docker's filter also finds names that contain it.
async fn oldest(docker: &Docker, name: &str) -> Result<Option<Network>> {
    let filters = [("name".to_owned(), vec![name.to_owned()])].into();
    let networks = lists::networks_with(docker, &filters).await?;
    Ok(networks
        .into_iter()
        .filter(|n| n.name == name)
        .min_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id))))
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
