//! `k3nest prune`: what clusters that nobody looks after any more left in Docker.

mod ask;
mod contexts;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    CliError, apply,
    confirm::confirm,
    delete::gone,
    output::{Column, Format, print},
    progress::Progress,
    session::{EngineArgs, Session, now},
};
use crate::{
    api::{ADOPT_ANNOTATION, Identity, STANDALONE},
    engine::observe_all,
    plan::{Belongings, Observed, RecordState, Standing, Verdict, judge},
};

/// Arguments of `prune`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  k3nest prune                             what is left, of which cluster, and why that is known
  k3nest prune --remove                    remove what is gone, orphaned or left over
  k3nest prune --remove --instance ID      only of this instance, also where it cannot be told

An operator's objects are told by the uid of its host cluster, and every API server that can be found is
asked: each context of the kubeconfig, and host clusters that run on this engine. What a K3sCluster
stands for is never removed.")]
pub struct PruneArgs {
    /// Remove what nobody looks after; without it, only list
    #[arg(long)]
    remove: bool,

    /// Only objects of this instance (may be repeated); with --remove also where no API server that
    /// answered can tell, but for clusters of the command line (standalone): k3nest delete removes those
    #[arg(long = "instance", value_name = "ID")]
    instances: Vec<String>,

    /// Kubeconfig whose contexts are asked; those of $KUBECONFIG or ~/.kube/config unless given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How to print the list
    #[arg(short, long, default_value = "table", conflicts_with = "remove")]
    output: Format,

    /// Do not ask before removing
    #[arg(short, long, requires = "remove")]
    yes: bool,

    /// How long to try
    #[arg(long, default_value = "2m", value_parser = apply::duration)]
    timeout: Duration,
}

/// One owner's objects, and what is to be said of them.
struct Owner {
    found: Belongings,
    verdict: Verdict,
}

pub async fn run(args: &EngineArgs, prune: PruneArgs) -> Result<(), CliError> {
    let session = Session::open(args).await?;
    let owners = survey(&session, &prune).await?;
    if prune.remove { remove(&session, &prune, owners).await } else { list(&prune, &owners) }
}

/// Everything on the engine that `prune` may speak of. Docker is asked first and the API servers
/// afterwards, so that every object's resource is older than the answer.
async fn survey(session: &Session, prune: &PruneArgs) -> Result<Vec<Owner>, CliError> {
    let all = observe_all(&session.docker, None).await?;
    let servers = ask::api_servers(session, &all, prune.kubeconfig.as_deref()).await;
    Ok(by_owner(all)
        .into_iter()
        .map(|(identity, observed)| Belongings::new(identity, &observed))
        .filter(|found| prune.instances.is_empty() || prune.names(found.instance()))
        .map(|found| {
            let verdict = judge(&found, &servers, now());
            Owner { found, verdict }
        })
        .collect())
}

/// Objects are removed by instance and owner, whatever name they carry besides.
fn by_owner(all: BTreeMap<Identity, Observed>) -> Vec<(Identity, Observed)> {
    let mut owners: Vec<(Identity, Observed)> = Vec::new();
    for (identity, observed) in all {
        let same = |other: &Identity| (&other.instance, &other.uid) == (&identity.instance, &identity.uid);
        match owners.iter_mut().find(|(other, _)| same(other)) {
            Some((_, known)) => {
                known.containers.extend(observed.containers);
                known.volumes.extend(observed.volumes);
                known.networks.extend(observed.networks);
            }
            None => owners.push((identity, observed)),
        }
    }
    owners
}

impl PruneArgs {
    fn names(&self, instance: &str) -> bool {
        self.instances.iter().any(|named| named == instance)
    }

    fn may_remove(&self, owner: &Owner) -> bool {
        // The instance of one cluster of the command line is that of all of them: it names none.
        let instance = owner.found.instance();
        owner.verdict.standing.removable(self.names(instance) && instance != STANDALONE)
    }
}

/// A line of the list.
#[derive(Serialize)]
struct Row<'a> {
    namespace: &'a str,
    name: &'a str,
    instance: &'a str,
    owner: &'a str,
    containers: usize,
    volumes: usize,
    networks: usize,
    since: Option<String>,
    state: &'static str,
    reason: &'a str,
}

impl<'a> Row<'a> {
    fn of(owner: &'a Owner) -> Self {
        let Belongings { identity, keeper: _, containers, volumes, networks, since, youngest: _, record: _ } =
            &owner.found;
        Self {
            namespace: &identity.namespace,
            name: &identity.name,
            instance: owner.found.instance(),
            owner: &identity.uid,
            containers: *containers,
            volumes: *volumes,
            networks: *networks,
            since: since.map(in_seconds),
            state: owner.verdict.standing.as_str(),
            reason: &owner.verdict.reason,
        }
    }
}

fn in_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Prints what there is; of instances that nobody has named only what is not alive.
fn list(prune: &PruneArgs, owners: &[Owner]) -> Result<(), CliError> {
    let shown: Vec<&Owner> = owners
        .iter()
        .filter(|o| o.verdict.standing != Standing::Alive || prune.names(o.found.instance()))
        .collect();
    let rows: Vec<Row> = shown.iter().map(|owner| Row::of(owner)).collect();
    let for_people = matches!(prune.output, Format::Table | Format::Wide);
    if rows.is_empty() && for_people {
        eprintln!("nothing to prune");
        return Ok(());
    }
    print(&rows, &columns(), prune.output, "owner", |row| row.owner.to_owned())?;
    if for_people {
        advice(&shown).iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(())
}

fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        Column::new("NAMESPACE", |r: &Row| r.namespace.to_owned()),
        Column::new("NAME", |r: &Row| r.name.to_owned()),
        Column::new("INSTANCE", |r: &Row| r.instance.to_owned()),
        Column::wide("OWNER", |r: &Row| r.owner.to_owned()),
        Column::new("CONTAINERS", |r: &Row| r.containers.to_string()),
        Column::new("VOLUMES", |r: &Row| r.volumes.to_string()),
        Column::new("NETWORKS", |r: &Row| r.networks.to_string()),
        Column::new("SINCE", |r: &Row| r.since.clone().unwrap_or_default()),
        Column::new("STATE", |r: &Row| r.state.to_owned()),
        Column::new("REASON", |r: &Row| r.reason.to_owned()),
    ]
}

impl Owner {
    /// How it is removed, where that is not this verb's to do.
    fn removed_by_name(&self) -> Option<String> {
        let Identity { instance, uid: _, namespace, name } = &self.found.identity;
        let of_command_line = instance == STANDALONE && self.verdict.standing == Standing::Unknown;
        of_command_line.then(|| format!("k3nest delete {name} -n {namespace}"))
    }
}

/// What can be done about it.
fn advice(owners: &[&Owner]) -> Vec<String> {
    let mut lines = Vec::new();
    if owners.iter().any(|o| o.verdict.standing.removable(false)) {
        lines.push("To remove what is gone, orphaned or left over: k3nest prune --remove".into());
    }
    let unknown =
        owners.iter().filter(|o| o.verdict.standing == Standing::Unknown && o.found.instance() != STANDALONE);
    let unknown: BTreeSet<&str> = unknown.map(|o| o.found.instance()).collect();
    for instance in unknown {
        lines.push(format!(
            "Where it cannot be told: have its API server answer, or, if it is gone for good: k3nest prune --remove --instance {instance}"
        ));
    }
    for owner in owners {
        if let Some(command) = owner.removed_by_name() {
            lines.push(format!(
                "To remove {}, which is the command line's, with its data: {command}",
                owner.found.identity
            ));
        }
    }
    let adoptable = |owner: &&&Owner| {
        let Owner { found, verdict } = owner;
        found.identity.instance != STANDALONE
            && found.record == RecordState::Readable
            && matches!(verdict.standing, Standing::Orphaned | Standing::Gone | Standing::Unknown)
    };
    for Owner { found: Belongings { identity, keeper, .. }, .. } in owners.iter().filter(adoptable) {
        let from = keeper.as_ref().map(|keeper| format!(":{}", keeper.uid)).unwrap_or_default();
        lines.push(format!(
            "To keep {identity}: apply its K3sCluster again, in the same namespace, with the annotation {ADOPT_ANNOTATION}: {}{from}",
            identity.uid
        ));
    }
    lines
}

async fn remove(session: &Session, prune: &PruneArgs, owners: Vec<Owner>) -> Result<(), CliError> {
    let (mut going, staying): (Vec<Owner>, Vec<Owner>) =
        owners.into_iter().partition(|owner| prune.may_remove(owner));
    let refused = told_of(prune, &staying);
    if going.is_empty() {
        if let Some(why) = refused {
            return Err(CliError::Failed(format!("nothing was removed: {why}")));
        }
        eprintln!("nothing to remove");
        return Ok(());
    }
    for Owner { found, verdict } in &going {
        let Belongings { identity, containers, volumes, networks, .. } = found;
        let objects = [(containers, "container"), (volumes, "volume"), (networks, "network")]
            .map(|(n, w)| count(*n, w));
        eprintln!(
            "{identity} of instance {}: {}; {}: {}",
            found.instance(),
            objects.join(", "),
            verdict.standing.as_str(),
            verdict.reason
        );
    }
    if !prune.yes {
        confirm("Remove all of it, with the data in it?", || {
            "this removes data; run k3nest prune --remove --yes".into()
        })
        .await?;
        // Meanwhile somebody may have adopted what a person has thought about.
        let again = survey(session, prune).await?;
        going.retain(|o| {
            again.iter().any(|a| {
                (&a.found.identity, &a.found.keeper) == (&o.found.identity, &o.found.keeper)
                    && prune.may_remove(a)
            })
        });
    }
    let names: Vec<String> = going.iter().map(|owner| owner.found.identity.to_string()).collect();
    let progress = Progress::new(names.iter().map(String::as_str));
    let runs = going.iter().zip(&names).map(|(owner, name)| {
        let line = progress.line(name);
        async move {
            let result =
                gone(session, &owner.found.identity, owner.found.keeper.clone(), prune.timeout, &line).await;
            line.end(if result.is_ok() { "removed" } else { "not removed" });
            result
        }
    });
    CliError::all(join_all(runs).await.into_iter().filter_map(Result::err).collect())
}

fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Says what stays, unless it is alive and nobody has asked for it. Why this is not what was asked for, if
/// what was named stays for good.
fn told_of(prune: &PruneArgs, staying: &[Owner]) -> Option<&'static str> {
    let mut refused = None;
    for owner in staying {
        let Owner { found, verdict } = owner;
        let alive = verdict.standing == Standing::Alive;
        let named = prune.names(found.instance());
        if alive && !named {
            continue;
        }
        let by_name = owner.removed_by_name();
        let how = by_name.as_ref().map(|command| format!("; {command} removes it")).unwrap_or_default();
        eprintln!("{} stays: {}: {}{how}", found.identity, verdict.standing.as_str(), verdict.reason);
        if alive {
            refused = Some("what was named is alive");
        } else if named && by_name.is_some() {
            refused =
                refused.or(Some("k3nest delete removes clusters of the command line, each by its name"));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Role,
        cli::testing::{ENGINE, FakeDocker},
    };

    fn owner(instance: &str, standing: Standing, record: RecordState) -> Owner {
        let identity = Identity { instance: instance.into(), ..Identity::standalone(ENGINE, "team", "dev") };
        let found = Belongings { record, ..Belongings::new(identity, &Observed::default()) };
        Owner { found, verdict: Verdict { standing, reason: "reason".into() } }
    }

    fn prune(instances: &[&str]) -> PruneArgs {
        PruneArgs {
            remove: true,
            instances: instances.iter().map(|text| (*text).to_owned()).collect(),
            kubeconfig: Some("/nowhere".into()),
            output: Format::Table,
            yes: true,
            timeout: Duration::from_secs(2),
        }
    }

    #[test]
    fn the_instance_of_the_command_line_names_no_cluster() {
        use Standing::{Gone, Leftover, Unknown};
        let named = prune(&[STANDALONE, "I"]);
        for (instance, standing, goes) in [
            (STANDALONE, Unknown, false),
            (STANDALONE, Leftover, true),
            ("I", Unknown, true),
            ("I", Gone, true),
            ("J", Unknown, false),
        ] {
            let owner = owner(instance, standing, RecordState::Lost);
            assert_eq!(named.may_remove(&owner), goes, "{instance}: {standing:?}");
        }
    }

    #[test]
    fn what_is_advised_removes_nothing_that_is_well() {
        let lost = owner(STANDALONE, Standing::Unknown, RecordState::Lost);
        let theirs = owner("I", Standing::Unknown, RecordState::Readable);
        let lines = advice(&[&lost, &theirs]).join("\n");
        assert!(!lines.contains("--instance standalone"), "{lines}");
        assert!(lines.contains("--instance I") && lines.contains("k3nest delete dev -n team"), "{lines}");
        assert_eq!(told_of(&prune(&["I"]), &[lost]), None, "nobody has asked for it");
    }

    #[test]
    fn a_removal_prints_no_list_and_says_so() {
        use clap::Parser;
        let parse = |words: &[&str]| {
            let words = [&["k3nest", "prune"], words].concat();
            crate::cli::Cli::try_parse_from(words).map(drop).map_err(|error| error.to_string())
        };
        let error = parse(&["--remove", "-o", "json"]).unwrap_err();
        assert!(error.contains("cannot be used with") && error.contains("--output"), "{error}");
        assert_eq!((parse(&["--remove"]), parse(&["-o", "json"])), (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn what_lacks_its_record_is_not_removed_by_the_instance_of_all() {
        let dev = Identity::standalone(ENGINE, "team", "dev");
        let docker = FakeDocker::with(&[(&dev, Role::Server), (&dev, Role::Data)]);
        let error = run(&docker.args(), prune(&[STANDALONE])).await.unwrap_err();
        assert!(error.to_string().contains("k3nest delete removes clusters of the command line"), "{error}");
        assert_eq!(docker.changes(), [""; 0]);
    }
}
