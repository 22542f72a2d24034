//! Credentials of a nested cluster's administrator and the kubeconfigs made of them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::config::AuthInfo;
use serde::Deserialize;
use serde_json::json;

use crate::plan::Sensitive;

/// How long a connection to a nested API may take. It is on this host or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Credentials and the stable name in the API's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// CA of the API, PEM.
    pub ca: String,
    /// Client certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: Sensitive<String>,
    /// The name that certificates are verified against (`tls-server-name`).
    pub server_name: String,
}

/// Why a kubeconfig could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not a kubeconfig of the expected shape.
    #[error("the kubeconfig that k3s wrote cannot be read: {0}")]
    Unreadable(String),
    /// No client could be made of it.
    #[error("no client for the nested API: {0}")]
    Client(#[from] kube::Error),
}

/// The part of a kubeconfig that holds credentials.
#[derive(Deserialize)]
struct K3sYaml {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

impl Access {
    /// From the kubeconfig that k3s writes (/etc/rancher/k3s/k3s.yaml).
    ///
    /// # Errors
    /// Where it is cut short or of another shape.
    pub fn from_k3s_yaml(yaml: &[u8], server_name: &str) -> Result<Self, AccessError> {
        // The message of a parser may quote the text, which holds a key.
        let unreadable = |what: &str| AccessError::Unreadable(what.to_owned());
        let parsed: K3sYaml = serde_saphyr::from_slice(yaml)
            .map_err(|_| unreadable("it is not a kubeconfig with credentials"))?;
        let decode = |data: &str, what: &str| {
            let bytes = BASE64_STANDARD.decode(data).map_err(|_| unreadable(what))?;
            String::from_utf8(bytes).map_err(|_| unreadable(what))
        };
        let cluster = parsed.clusters.first().ok_or_else(|| unreadable("it names no cluster"))?;
        let user = parsed.users.first().ok_or_else(|| unreadable("it names no user"))?;
        Ok(Self {
            ca: decode(&cluster.cluster.certificate_authority_data, "its CA is not base64")?,
            certificate: decode(&user.user.client_certificate_data, "its certificate is not base64")?,
            key: Sensitive::new(decode(&user.user.client_key_data, "its key is not base64")?),
            server_name: server_name.to_owned(),
        })
    }

    /// A kubeconfig with one context, called `context`, for readers who reach the API at `url`.
    pub fn kubeconfig(&self, context: &str, url: &str) -> String {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": {
                "server": url,
                "certificate-authority-data": encode(&self.ca),
                "tls-server-name": self.server_name,
            }}],
            "users": [{"name": context, "user": {
                "client-certificate-data": encode(&self.certificate),
                "client-key-data": encode(self.key.expose()),
            }}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            "current-context": context,
        });
        // A JSON value always serialises.
        serde_saphyr::to_string(&config).unwrap_or_default()
    }

    /// A client for `url`, verifying against [`Self::server_name`]. Answers are not bounded in time,
    /// for the sake of watches: callers bound what they ask.
    ///
    /// # Errors
    /// Where the credentials are not what TLS takes.
    pub fn client(&self, url: &str) -> Result<kube::Client, AccessError> {
        let uri = url.parse().map_err(|_| AccessError::Unreadable(format!("{url} is not a URL")))?;
        let ca = pem::parse_many(&self.ca).map_err(|e| AccessError::Unreadable(e.to_string()))?;
        let mut config = kube::Config::new(uri);
        config.root_cert = Some(ca.into_iter().map(pem::Pem::into_contents).collect());
        config.tls_server_name = Some(self.server_name.clone());
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A nested API is next door; a proxy of the environment cannot reach it.
        config.proxy_url = None;
        config.auth_info = AuthInfo {
            client_certificate_data: Some(BASE64_STANDARD.encode(&self.certificate)),
            client_key_data: Some(BASE64_STANDARD.encode(self.key.expose()).into()),
            ..AuthInfo::default()
        };
        Ok(kube::Client::try_from(config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            ca: "CA".into(),
            certificate: "CERT".into(),
            key: Sensitive::new("KEY".into()),
            server_name: "dev-k3s-api.default.svc".into(),
        }
    }

    #[test]
    fn a_kubeconfig_is_read_back() {
        let yaml = access().kubeconfig("dev", "https://127.0.0.1:16443");
        let read = Access::from_k3s_yaml(yaml.as_bytes(), "dev-k3s-api.default.svc").unwrap();
        assert_eq!(read, access());
        insta::assert_snapshot!(yaml);
    }

    #[test]
    fn neither_debug_nor_errors_show_the_key() {
        assert!(!format!("{:?}", access()).contains("KEY"));
        let cut = access().kubeconfig("dev", "https://x").replace("S0VZ", "S0V*");
        let error = Access::from_k3s_yaml(cut.as_bytes(), "x").unwrap_err().to_string();
        assert_eq!(error, "the kubeconfig that k3s wrote cannot be read: its key is not base64");
    }
}
