//! Step "publish": brings the Secret, the Service and the EndpointSlice of a cluster to what they
//! should say. Everything is read first; what is somebody else's is never written, and what is
//! right already is not written again.

use std::{fmt::Debug, net::Ipv4Addr};

use futures::try_join;
use k8s_openapi::api::{
    core::v1::{Namespace, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    backend::Backend,
    context::{Context, MANAGER},
    error::{Context as _, ReconcileError},
    published::{Owner, fits_slice},
};
use crate::{
    api::{Blocked, K3sClusterStatus, Reason, condition},
    reconcile::Outcome,
};

/// What of the three objects exists already.
#[derive(Debug, Default)]
pub(super) struct Existing {
    secret: Option<Secret>,
    service: Option<Service>,
    slice: Option<EndpointSlice>,
}

/// What came of publishing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Whether the kubeconfig Secret is there.
    pub secret: bool,
    /// The in-host-cluster URL, once an address behind it was found.
    pub internal_url: Option<String>,
    /// Why Pods cannot reach the API, if they cannot.
    pub unreachable: Option<String>,
}

/// Reads what exists. An object of that name that is not ours blocks the cluster, before anything
/// is made that would lead up to it.
pub(super) async fn gather(
    client: &Client,
    owner: &Owner,
) -> Result<Result<Existing, Blocked>, ReconcileError> {
    let service_name = owner.identity.service_name();
    let (secret, service, slice) = try_join!(
        find::<Secret>(client, owner, owner.secret_name()),
        find::<Service>(client, owner, service_name.clone()),
        find::<EndpointSlice>(client, owner, service_name),
    )?;
    Ok((|| Ok(Existing { secret: secret?, service: service?, slice: slice? }))())
}

/// Publishes what `outcome` has to offer.
pub(super) async fn publish<B: Backend>(
    ctx: &Context<B>,
    owner: &Owner,
    existing: Existing,
    outcome: &Outcome,
) -> Result<Published, ReconcileError> {
    let mut published = Published {
        secret: existing.secret.as_ref().is_some_and(|secret| owner.owns(secret.meta())),
        internal_url: existing
            .slice
            .as_ref()
            .filter(|slice| owner.owns(slice.meta()))
            .map(|_| owner.internal_url()),
        unreachable: None,
    };
    let (Some(access), Some(url)) = (&outcome.access, &outcome.status.endpoint) else { return Ok(published) };

    let address = match first_that_answers(ctx, outcome, access).await {
        Found::Address(address, port) => Some((address, port)),
        Found::Nothing(why) => {
            published.unreachable = Some(why);
            None
        }
        Found::NotTried => None,
    };
    let Existing { secret, service, slice } = existing;
    let creates = secret.is_none() || service.is_none() || (slice.is_none() && address.is_some());
    if creates && terminating(&ctx.client, &owner.identity.namespace).await? {
        // Nothing can be created there any more, and soon the cluster is deleted, too.
        return Ok(published);
    }
    put(&ctx.client, owner, secret, &owner.secret(access, url)).await?;
    put(&ctx.client, owner, service, &owner.service()).await?;
    if let Some((address, port)) = address {
        put(&ctx.client, owner, slice, &owner.slice(address, port)).await?;
        published.internal_url = Some(owner.internal_url());
    }
    published.secret = true;
    Ok(published)
}

/// Whether Pods get in.
enum Found {
    /// Under this address.
    Address(Ipv4Addr, u16),
    /// Under none; why, and what to do.
    Nothing(String),
    /// The API does not answer yet from anywhere.
    NotTried,
}

/// The first address that answers with a certificate of the nested CA.
async fn first_that_answers<B: Backend>(
    ctx: &Context<B>,
    outcome: &Outcome,
    access: &crate::k3s::Access,
) -> Found {
    if !available(&outcome.status) {
        return Found::NotTried;
    }
    let mut failures = Vec::new();
    for (address, port) in outcome.internal_candidates.iter().copied() {
        if !fits_slice(address) {
            failures.push(format!("{address} cannot be an endpoint of a Service"));
            continue;
        }
        match ctx.backend.handshake(access, &format!("https://{address}:{port}")).await {
            Ok(()) => return Found::Address(address, port),
            Err(why) => failures.push(format!("{address}:{port}: {why}")),
        }
    }
    if failures.is_empty() {
        failures.push("no address is known".into());
    }
    Found::Nothing(format!(
        "Pods of the host cluster cannot reach it ({}); open the Docker host's firewall for the host cluster's Pods, or give the operator a --publish-address together with spec.api.hostIP 0.0.0.0",
        failures.join("; ")
    ))
}

fn available(status: &K3sClusterStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == condition::AVAILABLE && c.status == "True")
}

/// The kinds that are published.
trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug
{
}

impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
{
}

async fn find<K: Kind>(
    client: &Client,
    owner: &Owner,
    name: String,
) -> Result<Result<Option<K>, Blocked>, ReconcileError> {
    let namespace = &owner.identity.namespace;
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let kind = K::kind(&());
    let found =
        api.get_opt(&name).await.context(|| format!("read {kind} {name} in namespace {namespace}"))?;
    Ok(match found {
        Some(object) if !owner.owns(object.meta()) && !owner.succeeds(object.meta()) => Err(Blocked::new(
            Reason::NameTaken,
            format!(
                "{kind} {name} exists in namespace {namespace} and is not this cluster's; rename or delete it, or give the cluster another name"
            ),
        )),
        found => Ok(found),
    })
}

/// Makes an object what it should be, if it is not. Creating never takes over what appeared since
/// it was looked for, and changing never what was changed since.
async fn put<K: Kind>(
    client: &Client,
    owner: &Owner,
    existing: Option<K>,
    wanted: &K,
) -> Result<(), ReconcileError> {
    let (kind, name) = (K::kind(&()), wanted.name_any());
    let namespace = wanted.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let Some(existing) = existing else {
        let by = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        return api
            .create(&by, wanted)
            .await
            .map(drop)
            .context(|| format!("create {kind} {name} in namespace {namespace}"));
    };
    let mut change = json_of(wanted);
    let Some(metadata) = change.get_mut("metadata").and_then(Value::as_object_mut) else { return Ok(()) };
    if owner.owns(existing.meta()) {
        // Others may have added theirs.
        metadata.remove("ownerReferences");
    }
    if covers(&json_of(&existing), &change) {
        return Ok(());
    }
    if let Some(metadata) = change.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), existing.resource_version().into());
    }
    let by = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    api.patch(&name, &by, &Patch::Merge(&change))
        .await
        .map(drop)
        .context(|| format!("change {kind} {name} in namespace {namespace}"))
}

fn json_of<K: Serialize>(object: &K) -> Value {
    // These kinds always serialise.
    serde_json::to_value(object).unwrap_or_default()
}

/// Whether everything in `wanted` is in `existing`, which may say more.
fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| existing.get(key).is_some_and(|known| covers(known, value)))
        }
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len() && existing.iter().zip(wanted).all(|(e, w)| covers(e, w))
        }
        (existing, wanted) => existing == wanted,
    }
}

/// Whether `namespace` is on its way out, or gone.
pub(super) async fn terminating(client: &Client, namespace: &str) -> Result<bool, ReconcileError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found =
        namespaces.get_metadata_opt(namespace).await.context(|| format!("read namespace {namespace}"))?;
    Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference_and_what_it_lacks_is() {
        let wanted = json!({"spec": {"ports": [{"port": 6443}]}});
        assert!(covers(
            &json!({"spec": {"ports": [{"port": 6443, "nodePort": 1}], "clusterIP": "x"}}),
            &wanted
        ));
        assert!(!covers(&json!({"spec": {"ports": [{"port": 6443}, {"port": 1}]}}), &wanted));
        assert!(!covers(&json!({"spec": {}}), &wanted));
    }
}
