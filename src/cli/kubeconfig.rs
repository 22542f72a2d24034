//! `k3nest kubeconfig`: print it, merge it into a file, take it out again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError,
    session::{EngineArgs, Session, now},
};
use crate::{api::Identity, reconcile::inspect};

/// Arguments of `kubeconfig`.
#[derive(Args, Clone, Debug)]
pub struct KubeconfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Print the kubeconfig of a cluster
    Get(Cluster),
    /// Put a cluster into a kubeconfig file, leaving everything else in it as it is
    Merge {
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        file: Target,
        /// Make it the current context
        #[arg(long)]
        switch: bool,
    },
    /// Take a cluster out of a kubeconfig file; works for one that is gone, too
    Remove {
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        file: Target,
    },
}

#[derive(Args, Clone, Debug)]
struct Cluster {
    /// The cluster
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

#[derive(Args, Clone, Debug)]
struct Target {
    /// The file; the first of $KUBECONFIG or ~/.kube/config unless given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Target {
    fn path(&self) -> Result<PathBuf, CliError> {
        let first = std::env::var_os("KUBECONFIG")
            .and_then(|list| std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty()));
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        self.kubeconfig.clone().or(first).or_else(home).ok_or_else(|| {
            CliError::Input(
                "neither --kubeconfig nor KUBECONFIG nor HOME is set; give --kubeconfig FILE".into(),
            )
        })
    }
}

/// Name of a cluster's context, user and cluster entries.
pub fn context_name(identity: &Identity) -> String {
    match identity.namespace.as_str() {
        "default" => format!("k3nest-{}", identity.name),
        namespace => format!("k3nest-{namespace}-{}", identity.name),
    }
}

pub async fn run(args: &EngineArgs, kubeconfig: KubeconfigArgs) -> Result<(), CliError> {
    match kubeconfig.verb {
        Verb::Get(cluster) => {
            print!("{}", fetch(args, &cluster).await?.1);
            Ok(())
        }
        Verb::Merge { cluster, file, switch } => {
            let (context, yaml) = fetch(args, &cluster).await?;
            let path = file.path()?;
            let mut config = read(&path)?;
            merge(&mut config, parse(&yaml, "the cluster's kubeconfig")?, &context, switch);
            write(&path, &config)?;
            eprintln!("context {context} is in {}", path.display());
            Ok(())
        }
        Verb::Remove { cluster, file } => {
            let context = context_name(&Identity::standalone("", &cluster.namespace, &cluster.name));
            let path = file.path()?;
            let mut config = read(&path)?;
            let former = config.clone();
            take_out(&mut config, &context);
            if config == former {
                eprintln!("context {context} is not in {}", path.display());
                return Ok(());
            }
            write(&path, &config)?;
            eprintln!("context {context} is no longer in {}", path.display());
            Ok(())
        }
    }
}

/// Context name and kubeconfig of a cluster.
async fn fetch(args: &EngineArgs, cluster: &Cluster) -> Result<(String, String), CliError> {
    let session = Session::open(args).await?;
    let wanted = session.identity(&cluster.namespace, &cluster.name);
    kubeconfig_of(&session, &wanted).await
}

/// Context name and kubeconfig of the cluster `wanted`.
pub async fn kubeconfig_of(session: &Session, wanted: &Identity) -> Result<(String, String), CliError> {
    let clusters = session.clusters().await?;
    let found = clusters.iter().find(|(identity, _)| identity.uid == wanted.uid);
    let request = found.and_then(|(identity, observed)| session.recorded(identity, observed));
    let Some((_, request)) = request else {
        return Err(CliError::Failed(format!(
            "cluster {wanted} not found; k3nest get clusters lists what is there"
        )));
    };
    let outcome = inspect(&session.quiet(), &request, now()).await;
    let (Some(access), Some(url)) = (outcome.access, outcome.status.endpoint) else {
        return Err(CliError::Failed(format!(
            "cluster {wanted} has no kubeconfig yet; k3nest get clusters -o wide says why"
        )));
    };
    let context = context_name(wanted);
    let yaml = access.kubeconfig(&context, &url);
    Ok((context, yaml))
}

fn parse(text: &str, what: &str) -> Result<Value, CliError> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|e| CliError::Input(format!("{what} is not YAML: {}", e.without_snippet())))?;
    match value {
        Value::Null => Ok(json!({"apiVersion": "v1", "kind": "Config"})),
        Value::Object(_) => Ok(value),
        _ => Err(CliError::Input(format!("{what} is not a kubeconfig; nothing was changed"))),
    }
}

fn read(path: &std::path::Path) -> Result<Value, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => parse("", ""),
        Err(e) => Err(CliError::Input(format!("{} cannot be read: {e}", path.display()))),
    }
}

/// Writes a file of its own beside it and renames: a cut leaves the old or the new one, whole.
fn write(path: &std::path::Path, config: &Value) -> Result<(), CliError> {
    let yaml = serde_saphyr::to_string(config).map_err(|e| CliError::Failed(e.to_string()))?;
    write_text(path, &yaml)
}

/// Writes a kubeconfig for its user alone, whole or not at all.
pub fn write_text(path: &std::path::Path, yaml: &str) -> Result<(), CliError> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let failed = |e: std::io::Error| {
        CliError::Failed(format!("{} cannot be written: {e}; nothing was changed", path.display()))
    };
    // A link stays a link: what it points to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let temporary = folder.join(format!(".k3nest-{}", uuid::Uuid::new_v4()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(yaml.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        failed(e)
    })
}

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

fn merge(config: &mut Value, ours: Value, context: &str, switch: bool) {
    take_out_entries(config, context);
    for list in LISTS {
        let added = ours.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        match config.get_mut(list) {
            Some(Value::Array(entries)) => entries.extend(added),
            _ => config[list] = Value::Array(added),
        }
    }
    let current = config.get("current-context").and_then(Value::as_str).unwrap_or_default();
    if switch || current.is_empty() {
        config["current-context"] = json!(context);
    }
}

fn take_out(config: &mut Value, context: &str) {
    take_out_entries(config, context);
    if config.get("current-context").and_then(Value::as_str) == Some(context)
        && let Some(object) = config.as_object_mut()
    {
        object.remove("current-context");
    }
}

fn take_out_entries(config: &mut Value, context: &str) {
    for list in LISTS {
        if let Some(Value::Array(entries)) = config.get_mut(list) {
            entries.retain(|entry| entry.get("name").and_then(Value::as_str) != Some(context));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Value {
        json!({"name": name, "cluster": {"server": "x"}})
    }

    #[test]
    fn merging_and_removing_leaves_the_rest_as_it_is() {
        let before = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {"colors": true},
            "clusters": [entry("a")], "users": [], "contexts": [entry("a")], "current-context": "a",
        });
        let ours = json!({"clusters": [entry("k3nest-dev")], "users": [entry("k3nest-dev")], "contexts": [entry("k3nest-dev")]});
        let mut config = before.clone();
        merge(&mut config, ours.clone(), "k3nest-dev", false);
        merge(&mut config, ours, "k3nest-dev", true);
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(config["current-context"], "k3nest-dev");
        take_out(&mut config, "k3nest-dev");
        let mut expected = before;
        expected.as_object_mut().unwrap().remove("current-context");
        assert_eq!(config, expected);
    }
}
