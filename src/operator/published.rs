//! The objects that hand a cluster to its readers: Secret `<cluster>-kubeconfig`, Service and
//! EndpointSlice `<cluster>-k3s-api`; what they should say, as pure functions.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Secret, Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::Resource;

use crate::{
    api::{Identity, K3sCluster, label},
    k3s::Access,
};

/// Port of every nested API, as Pods see it.
pub(super) const API_PORT: u16 = 6443;

/// Type of the kubeconfig Secret; Flux and Cluster API know it.
pub(super) const SECRET_TYPE: &str = "cluster.x-k8s.io/secret";

/// Name of the Port in Service and EndpointSlice, which must match.
const PORT_NAME: &str = "https";

/// Who publishes, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub identity: Identity,
    reference: OwnerReference,
}

impl Owner {
    /// `uid` is the resource's own, also where its objects in Docker carry another.
    pub(super) fn new(identity: Identity, uid: String) -> Self {
        let reference = OwnerReference {
            api_version: K3sCluster::api_version(&()).into(),
            kind: K3sCluster::kind(&()).into(),
            name: identity.name.clone(),
            uid,
            controller: Some(true),
            // Would need rights to k3sclusters/finalizers on some clusters, for nothing: the
            // finalizer keeps the cluster already.
            block_owner_deletion: None,
        };
        Self { identity, reference }
    }

    /// Whether an object is this cluster's.
    pub(super) fn owns(&self, metadata: &ObjectMeta) -> bool {
        metadata.owner_references.iter().flatten().any(|owner| owner.uid == self.reference.uid)
    }

    /// Whether an object was a former cluster's of this name, which is gone: two cannot be there at once.
    /// Kubernetes removes it some time after its owner, unless it has another by then.
    pub(super) fn succeeds(&self, metadata: &ObjectMeta) -> bool {
        let own = &self.reference;
        let former = |owner: &OwnerReference| {
            (&owner.api_version, &owner.kind, &owner.name) == (&own.api_version, &own.kind, &own.name)
                && owner.uid != own.uid
        };
        let is_k3nest =
            metadata.labels.iter().flatten().any(|(key, name)| key == label::NAME && *name == own.name);
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        is_k3nest && !owners.is_empty() && owners.iter().all(former)
    }

    pub(super) fn secret_name(&self) -> String {
        secret_name(&self.identity.name)
    }

    /// The in-host-cluster URL of the API.
    pub(super) fn internal_url(&self) -> String {
        format!("https://{}:{API_PORT}", self.identity.service_host())
    }

    fn metadata(&self, name: String, labels: &[(&str, &str)]) -> ObjectMeta {
        let common = [
            (label::OWNER, self.reference.uid.as_str()),
            (label::NAME, self.identity.name.as_str()),
            ("app.kubernetes.io/managed-by", "k3nest"),
        ];
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.identity.namespace.clone()),
            labels: Some(
                common.iter().chain(labels).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ),
            owner_references: Some(vec![self.reference.clone()]),
            ..ObjectMeta::default()
        }
    }

    /// The kubeconfig Secret, for readers outside at `url`.
    pub(super) fn secret(&self, access: &Access, url: &str) -> Secret {
        let internal = self.internal_url();
        let context = &self.identity.name;
        let data: [(&str, String); 7] = [
            ("kubeconfig", access.kubeconfig(context, url)),
            ("value", access.kubeconfig(context, &internal)),
            ("server", url.to_owned()),
            ("internal-server", internal),
            ("ca.crt", access.ca.clone()),
            ("tls.crt", access.certificate.clone()),
            ("tls.key", access.key.expose().clone()),
        ];
        let data: BTreeMap<_, _> =
            data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect();
        Secret {
            metadata: self
                .metadata(self.secret_name(), &[("cluster.x-k8s.io/cluster-name", &self.identity.name)]),
            type_: Some(SECRET_TYPE.into()),
            data: Some(data),
            ..Secret::default()
        }
    }

    /// The Service, whose endpoints are ours to name: it has no selector.
    pub(super) fn service(&self) -> Service {
        let port = ServicePort {
            name: Some(PORT_NAME.into()),
            port: i32::from(API_PORT),
            protocol: Some("TCP".into()),
            target_port: Some(IntOrString::Int(i32::from(API_PORT))),
            ..ServicePort::default()
        };
        Service {
            metadata: self.metadata(self.identity.service_name(), &[]),
            spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }),
            ..Service::default()
        }
    }

    /// The EndpointSlice with the one address that Pods reach.
    pub(super) fn slice(&self, address: Ipv4Addr, port: u16) -> EndpointSlice {
        let service = self.identity.service_name();
        let labels = [
            ("kubernetes.io/service-name", service.as_str()),
            // Says that it is not the endpoint slice controller's, which would remove it.
            ("endpointslice.kubernetes.io/managed-by", "k3nest.dev"),
        ];
        EndpointSlice {
            metadata: self.metadata(service.clone(), &labels),
            address_type: "IPv4".into(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![address.to_string()],
                conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
                ..Endpoint::default()
            }]),
            ports: Some(vec![EndpointPort {
                name: Some(PORT_NAME.into()),
                port: Some(i32::from(port)),
                protocol: Some("TCP".into()),
                ..EndpointPort::default()
            }]),
        }
    }
}

/// Name of the kubeconfig Secret of `cluster`.
pub(super) fn secret_name(cluster: &str) -> String {
    format!("{cluster}{SECRET_SUFFIX}")
}

/// The cluster whose kubeconfig Secret would be called `name`.
pub(super) fn cluster_of_secret(name: &str) -> Option<&str> {
    name.strip_suffix(SECRET_SUFFIX)
}

const SECRET_SUFFIX: &str = "-kubeconfig";

/// Addresses that an EndpointSlice takes (Kubernetes refuses the others).
pub(super) fn fits_slice(address: Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_link_local() || address.is_multicast() || address.is_unspecified())
}
