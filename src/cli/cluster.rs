//! `k3nest cluster`: what is done to a cluster once, rather than wished for good.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand};

use super::{
    CliError, apply,
    files::{self, ClusterFile},
    progress::Progress,
    session::{EngineArgs, Session},
};
use crate::{
    api::{Identity, STANDALONE},
    engine::observe_all,
    plan::{Observed, Recover, SERVER_POOL, recovery_command},
    reconcile::Request,
};

/// Arguments of `cluster`.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Go on with the data of one server, after most servers lost theirs; the others join it as new members
    Recover(RecoverArgs),
}

/// Arguments of `cluster recover`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  k3nest cluster recover dev                        with the data of the server that was written to last
  k3nest cluster recover dev --from dev-server-1    with that one's
  k3nest cluster recover -f dev.yaml                where the cluster refers to Secrets or ConfigMaps

What only the lost servers knew is given up. Where enough servers have their data, nothing is: they come back by
themselves, unless --from names one and the API stays silent though all of them are up. A cluster of the operator's is recovered by the annotation k3nest.dev/recover=<word> of its K3sCluster.")]
struct RecoverArgs {
    /// The cluster
    #[arg(value_name = "NAME", required_unless_present = "file")]
    name: Option<String>,

    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// The file it was applied with; needed where that refers to Secrets or ConfigMaps
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "name")]
    file: Option<String>,

    /// The Node whose data is kept; without it the one that was written to last
    #[arg(long, value_name = "NODE")]
    from: Option<String>,

    /// How long to wait until every node is Ready
    #[arg(long, default_value = "10m", value_parser = apply::duration)]
    timeout: Duration,
}

pub async fn run(args: &EngineArgs, cluster: ClusterArgs) -> Result<(), CliError> {
    let Verb::Recover(recover) = cluster.verb;
    let session = Session::open(args).await?;
    let mut request = match &recover.file {
        Some(file) => applied(&session, file, &recover).await?,
        None => recorded(&session, &recover).await?,
    };
    if request.spec.paused {
        return Err(CliError::Input(format!(
            "{} is not recovered, since spec.paused is true; write spec.paused: false into its file and recover it with that: k3nest cluster recover -f {}",
            request.identity,
            recover.file.as_deref().unwrap_or("FILE"),
        )));
    }
    // Of two who wish at once, the second finds the recovery under way, and waits for it.
    request.recover = Some(Recover { nonce: uuid::Uuid::new_v4().to_string(), from: recover.from });
    let name = request.identity.name.clone();
    let progress = Progress::new([name.as_str()].into_iter());
    let line = progress.line(&name);
    let wait = apply::Wait { no_wait: false, timeout: recover.timeout };
    let result = apply::converge_request(&session, request, &wait, &line).await;
    line.end(match &result {
        Ok(text) => text,
        Err(CliError::NotInTime(_)) => "not Ready in time",
        Err(_) => "not recovered",
    });
    result.map(drop)
}

/// The request for the cluster in a file.
async fn applied(session: &Session, file: &str, args: &RecoverArgs) -> Result<Request, CliError> {
    let files: Vec<ClusterFile> = files::read(&[file.to_owned()])?;
    let [one] = files.as_slice() else {
        return Err(CliError::Input(format!(
            "{file} holds {} clusters; recover them one by one, by name",
            files.len()
        )));
    };
    let identity = session.identity(&one.namespace, &one.name);
    let all = observe_all(&session.docker, None).await?;
    if !has_servers(here(&all, &identity, args.from.as_deref())?) {
        return Err(CliError::Failed(format!(
            "{identity} has neither a record nor a server here, so there is nothing to go on with, and nothing was made; k3nest apply -f {file} makes it, k3nest delete {} -n {} removes what is left of it",
            identity.name, identity.namespace
        )));
    }
    apply::checked_request(session, one).await
}

/// The request for a cluster as it was applied last.
async fn recorded(session: &Session, args: &RecoverArgs) -> Result<Request, CliError> {
    let name = args.name.as_deref().unwrap_or_default();
    let identity = session.identity(&args.namespace, name);
    let all = observe_all(&session.docker, None).await?;
    let observed = here(&all, &identity, args.from.as_deref())?;
    let Some((_, request)) = session.recorded(&identity, observed) else {
        return Err(CliError::Failed(format!(
            "{identity} has no readable record; name the file it was applied with by -f"
        )));
    };
    if request.values.as_ref().is_ok_and(|values| values.cover(&request.spec)) {
        return Ok(request);
    }
    Err(CliError::Input(format!(
        "{identity} refers to Secrets or ConfigMaps, which are not kept; name the file it was applied with by -f"
    )))
}

/// What there is of `identity`. What is not here would be founded, empty, and called recovered.
fn here<'a>(
    all: &'a BTreeMap<Identity, Observed>,
    identity: &Identity,
    from: Option<&str>,
) -> Result<&'a Observed, CliError> {
    if let Some(observed) = all.get(identity) {
        return Ok(observed);
    }
    let Identity { namespace, name, .. } = identity;
    let of_operator =
        |i: &&Identity| i.instance != STANDALONE && (&i.namespace, &i.name) == (namespace, name);
    Err(CliError::Failed(match all.keys().find(of_operator) {
        Some(operators) => format!(
            "{identity} is an operator's; write to its resource: {}",
            recovery_command(operators, from),
        ),
        None => format!("not found: {identity}; k3nest get clusters lists what is there"),
    }))
}

/// Whether there are servers, or a memory of them: of anything less a step makes a new cluster.
fn has_servers(observed: &Observed) -> bool {
    observed.unreadable_record().is_some()
        || observed.record().or_else(|| observed.remembered()).is_some()
        || observed.members().iter().any(|member| member.pool == SERVER_POOL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Role,
        cli::testing::{ENGINE, FakeDocker},
    };

    /// What comes of a recovery of the cluster `dev` by a file, at an engine that has these objects.
    async fn recover(spec: &str, objects: &[(&Identity, Role)]) -> (CliError, Vec<String>) {
        let file = std::env::temp_dir().join(format!("k3nest-recover-{}", uuid::Uuid::new_v4()));
        let text = format!(
            "{{apiVersion: k3nest.dev/v1alpha1, kind: K3sCluster, metadata: {{name: dev}}, spec: {spec}}}"
        );
        std::fs::write(&file, text).unwrap();
        let docker = FakeDocker::with(objects);
        let verb = Verb::Recover(RecoverArgs {
            name: None,
            namespace: "default".into(),
            file: file.to_str().map(str::to_owned),
            from: Some("dev-server-1".into()),
            timeout: Duration::from_secs(2),
        });
        let error = run(&docker.args(), ClusterArgs { verb }).await.unwrap_err();
        std::fs::remove_file(file).unwrap();
        (error, docker.changes())
    }

    fn dev(instance: &str) -> Identity {
        Identity { instance: instance.into(), ..Identity::standalone(ENGINE, "default", "dev") }
    }

    #[tokio::test]
    async fn what_is_not_here_is_not_founded() {
        let (own, operators) = (dev(STANDALONE), dev("uid-of-a-host"));
        let other = Identity::standalone(ENGINE, "default", "other");
        for (what, objects, said) in [
            ("nothing", vec![], "not found: default/dev"),
            ("another's", vec![(&other, Role::Data)], "not found: default/dev"),
            (
                "an operator's",
                vec![(&operators, Role::Data)],
                "kubectl annotate --overwrite k3c dev -n default k3nest.dev/recover=$(date +%s):dev-server-1",
            ),
            ("a network alone", vec![(&own, Role::Network)], "neither a record nor a server"),
            ("an agent's data alone", vec![(&own, Role::Data)], "neither a record nor a server"),
        ] {
            let (error, changes) = recover("{version: v1.36.1+k3s1}", &objects).await;
            assert!(error.to_string().contains(said), "{what}: {error}");
            assert_eq!((error.code(), changes), (4, vec![]), "{what}");
        }
    }

    #[test]
    fn its_help_says_what_it_costs() {
        use clap::CommandFactory;
        let mut all = crate::cli::Cli::command();
        let cluster = all.find_subcommand_mut("cluster").unwrap();
        let help = cluster.find_subcommand_mut("recover").unwrap().render_long_help().to_string();
        assert!(help.contains("k3nest cluster recover dev --from"), "{help}");
        assert!(help.contains("What only the lost servers knew is given up"), "{help}");
    }

    #[tokio::test]
    async fn what_is_paused_is_not_said_to_be_recovered() {
        let own = dev(STANDALONE);
        let spec = "{version: v1.36.1+k3s1, paused: true}";
        let (error, changes) = recover(spec, &[(&own, Role::Record), (&own, Role::Data)]).await;
        assert!(error.to_string().contains("write spec.paused: false"), "{error}");
        assert_eq!((error.code(), changes), (2, vec![]));
    }
}
