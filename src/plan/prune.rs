//! Whose objects may go: what exists in Docker, held against what API servers know.
//!
//! An operator is told by the uid of its host cluster. One that nobody knows any more leaves
//! objects that nobody looks after; but an API server that does not answer is no proof of that.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Keeper, Observed};
use crate::api::{Identity, Role, STANDALONE};

/// Without a record, objects this young may belong to a cluster that is being made.
const IN_THE_MAKING: Duration = Duration::from_secs(60);

/// How many of the API servers that do not answer a reason names.
const NAMED: usize = 3;

/// What one owner has in Docker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongings {
    /// Whose it is.
    pub identity: Identity,
    /// Who has adopted it.
    pub keeper: Option<Keeper>,
    /// How many containers there are.
    pub containers: usize,
    /// How many volumes.
    pub volumes: usize,
    /// How many networks.
    pub networks: usize,
    /// When the oldest container or network was made; Docker's lists do not tell it of volumes.
    pub since: Option<Timestamp>,
    /// When the youngest was.
    pub youngest: Option<Timestamp>,
    /// Its record.
    pub record: RecordState,
}

/// Whether there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// There is, and it can be read.
    Readable,
    /// There is, but not in words of this version.
    Unreadable,
    /// There is none, and no node: half made, half deleted, or a container that was left behind.
    Missing,
    /// There is none, but there are nodes, which are made after it and removed before it: somebody has
    /// taken it away, as `docker volume prune` does.
    Lost,
}

impl Belongings {
    /// What of `identity` was seen.
    pub fn new(identity: Identity, observed: &Observed) -> Self {
        let made = || {
            let containers = observed.containers.iter().map(|c| c.created);
            containers.chain(observed.networks.iter().map(|n| n.created))
        };
        let is_node = |role: Option<Role>| matches!(role, Some(Role::Server | Role::Agent | Role::Data));
        let has_nodes = observed.containers.iter().any(|c| is_node(c.role()))
            || observed.volumes.iter().any(|v| is_node(v.role()));
        Self {
            identity,
            keeper: observed.keeper(),
            containers: observed.containers.len(),
            volumes: observed.volumes.len(),
            networks: observed.networks.len(),
            since: made().min(),
            youngest: made().max(),
            record: match (observed.unreadable_record(), observed.record()) {
                (Some(_), _) => RecordState::Unreadable,
                (None, Some(_)) => RecordState::Readable,
                (None, None) if has_nodes => RecordState::Lost,
                (None, None) => RecordState::Missing,
            },
        }
    }
}

impl Belongings {
    /// The instance whose operator looks after it.
    pub fn instance(&self) -> &str {
        self.keeper.as_ref().map_or(&self.identity.instance, |keeper| &keeper.instance)
    }

    /// The uids of the resources that may stand for it: the keeper, and who has it in its labels, which
    /// somebody may be about to adopt.
    fn resources(&self) -> impl Iterator<Item = &String> {
        self.keeper.iter().map(|keeper| &keeper.uid).chain([&self.identity.uid])
    }
}

/// An API server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// How it was found, such as "context dev".
    pub name: String,
    /// What it knows, or why it did not say.
    pub answer: Result<Answer, String>,
}

/// What an API server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// uid of its namespace kube-system, which is the instance of an operator in it.
    pub instance: String,
    /// Its resources in words, by each uid under which one has objects in Docker.
    pub clusters: BTreeMap<String, String>,
}

/// What an owner's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Looked after.
    Alive,
    /// Perhaps on their way to be a cluster.
    InTheMaking,
    /// Their API server answers, and has no resource for them.
    Orphaned,
    /// No API server is theirs any more.
    Gone,
    /// Of the command line, without a record.
    Leftover,
    /// It cannot be told.
    Unknown,
}

impl Standing {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::InTheMaking => "in-the-making",
            Self::Orphaned => "orphaned",
            Self::Gone => "gone",
            Self::Leftover => "leftover",
            Self::Unknown => "unknown",
        }
    }

    /// Whether its objects may be removed; `named` where a person has named their instance.
    pub fn removable(self, named: bool) -> bool {
        match self {
            Self::Orphaned | Self::Gone | Self::Leftover => true,
            Self::Unknown => named,
            Self::Alive | Self::InTheMaking => false,
        }
    }
}

/// What an owner's objects are, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What they are.
    pub standing: Standing,
    /// How that is known.
    pub reason: String,
}

impl Verdict {
    fn new(standing: Standing, reason: impl Into<String>) -> Self {
        Self { standing, reason: reason.into() }
    }
}

/// Judges what one owner has. `servers` were asked after Docker was, so that a resource that is
/// younger than the look at Docker cannot be missed.
pub fn judge(found: &Belongings, servers: &[ApiServer], now: Timestamp) -> Verdict {
    let (instance, name) = (found.instance(), &found.identity.name);
    if instance == STANDALONE && found.record == RecordState::Readable {
        let reason = format!("a cluster of the command line: k3nest delete {name} removes it");
        return Verdict::new(Standing::Alive, reason);
    }
    let answers = || servers.iter().filter_map(|s| Some((&s.name, s.answer.as_ref().ok()?)));
    if let Some((server, what)) =
        found.resources().find_map(|uid| answers().find_map(|(s, a)| Some((s, a.clusters.get(uid)?))))
    {
        return Verdict::new(Standing::Alive, format!("{what} ({server})"));
    }
    if may_be_in_the_making(found, now) {
        let reason = "less than a minute old and without a record: it may be in the making";
        return Verdict::new(Standing::InTheMaking, reason);
    }
    if found.record == RecordState::Unreadable {
        let reason = "its record cannot be read: another version of k3nest may have written it";
        return Verdict::new(Standing::Unknown, reason);
    }
    if instance == STANDALONE && found.record == RecordState::Lost {
        let reason = format!(
            "a cluster of the command line whose record is gone: k3nest apply writes it again, k3nest delete {name} removes the cluster"
        );
        return Verdict::new(Standing::Unknown, reason);
    }
    if instance == STANDALONE {
        return Verdict::new(Standing::Leftover, "of the command line, half made or half deleted");
    }
    if let Some((server, _)) = answers().find(|(_, answer)| answer.instance == instance) {
        return Verdict::new(Standing::Orphaned, format!("its API server ({server}) has no such K3sCluster"));
    }
    if servers.is_empty() {
        let reason = "no API server was found to ask: neither a kubeconfig nor a host cluster of k3nest up";
        return Verdict::new(Standing::Unknown, reason);
    }
    let silent: Vec<String> =
        servers.iter().filter_map(|s| Some(format!("{}: {}", s.name, s.answer.as_ref().err()?))).collect();
    match silent.as_slice() {
        [] => {
            let asked: Vec<&str> = servers.iter().map(|s| s.name.as_str()).collect();
            Verdict::new(Standing::Gone, format!("not the instance of any API server ({})", asked.join(", ")))
        }
        some => {
            let mut said = some.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
            if some.len() > NAMED {
                said.push_str(&format!("; and {} more", some.len() - NAMED));
            }
            Verdict::new(Standing::Unknown, format!("its API server may be one that did not answer: {said}"))
        }
    }
}

/// The record is made before everything but a probe, and removed last: without one a cluster is in
/// the making only as long as the lists can have missed it.
fn may_be_in_the_making(found: &Belongings, now: Timestamp) -> bool {
    let age = |made: Timestamp| now.duration_since(made);
    let bound = jiff::SignedDuration::try_from(IN_THE_MAKING).unwrap_or_default();
    let unrecorded = matches!(found.record, RecordState::Missing | RecordState::Lost);
    unrecorded && found.youngest.is_some_and(|made| age(made) < bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "owner";

    fn found(instance: &str, record: RecordState, age: i64) -> Belongings {
        let made = Some(now() - jiff::SignedDuration::from_secs(age));
        Belongings {
            identity: Identity {
                instance: instance.into(),
                uid: OWNER.into(),
                namespace: "team".into(),
                name: "dev".into(),
            },
            keeper: None,
            containers: 1,
            volumes: 2,
            networks: 1,
            since: made,
            youngest: made,
            record,
        }
    }

    fn now() -> Timestamp {
        "2030-01-01T12:00:00Z".parse().unwrap()
    }

    fn knows(name: &str, instance: &str, clusters: &[&str]) -> ApiServer {
        let clusters = clusters.iter().map(|uid| ((*uid).to_owned(), "K3sCluster team/dev".to_owned()));
        let answer = Answer { instance: instance.into(), clusters: clusters.collect() };
        ApiServer { name: name.into(), answer: Ok(answer) }
    }

    fn silent(name: &str) -> ApiServer {
        ApiServer { name: name.into(), answer: Err("connection refused".into()) }
    }

    #[test]
    fn what_is_alive_orphaned_gone_and_unknown() {
        use {RecordState::*, Standing::*};
        let here = || knows("context here", "I", &["another"]);
        let table: Vec<(&str, Belongings, Vec<ApiServer>, Standing, &str)> = vec![
            (
                "known by its uid",
                found("I", Readable, 600),
                vec![knows("context a", "I", &[OWNER])],
                Alive,
                "context a",
            ),
            (
                "adopted in another host cluster",
                found("I", Readable, 600),
                vec![here(), knows("context b", "J", &[OWNER])],
                Alive,
                "context b",
            ),
            (
                "known, though another is silent",
                found("I", Readable, 600),
                vec![silent("context x"), knows("context a", "I", &[OWNER])],
                Alive,
                "",
            ),
            (
                "known, though without a record",
                found("I", Missing, 600),
                vec![knows("context a", "I", &[OWNER])],
                Alive,
                "",
            ),
            (
                "its API server does not know it",
                found("I", Readable, 600),
                vec![here()],
                Orphaned,
                "context here",
            ),
            (
                "nor is it known where others are silent",
                found("I", Readable, 600),
                vec![silent("context x"), here()],
                Orphaned,
                "",
            ),
            ("half deleted", found("I", Missing, 61), vec![here()], Orphaned, ""),
            (
                "of the command line, without its record",
                found(STANDALONE, Lost, 600),
                vec![here()],
                Unknown,
                "k3nest apply writes it again",
            ),
            ("of the command line, in the making", found(STANDALONE, Lost, 5), vec![here()], InTheMaking, ""),
            (
                "of the command line, what is left",
                found(STANDALONE, Missing, 600),
                vec![here()],
                Leftover,
                "",
            ),
            ("young, with a record", found("I", Readable, 1), vec![here()], Orphaned, ""),
            ("young, without one", found("I", Missing, 59), vec![here()], InTheMaking, "less than a minute"),
            ("from the future", found("I", Missing, -30), vec![here()], InTheMaking, ""),
            (
                "nobody's instance",
                found("K", Readable, 600),
                vec![here(), knows("context b", "J", &[])],
                Gone,
                "context here, context b",
            ),
            ("young, of nobody's instance", found("K", Missing, 5), vec![here()], InTheMaking, ""),
            (
                "somebody is silent",
                found("K", Readable, 600),
                vec![here(), silent("context x")],
                Unknown,
                "context x: connection refused",
            ),
            ("nobody to ask", found("K", Readable, 600), vec![], Unknown, "no API server was found"),
            (
                "in words that are not ours",
                found("I", Unreadable, 600),
                vec![here()],
                Unknown,
                "cannot be read",
            ),
            ("the command line's", found(STANDALONE, Readable, 600), vec![], Alive, "k3nest delete dev"),
            (
                "the command line's, half deleted",
                found(STANDALONE, Missing, 600),
                vec![silent("context x")],
                Leftover,
                "",
            ),
            ("the command line's, in the making", found(STANDALONE, Missing, 5), vec![], InTheMaking, ""),
            (
                "the command line's, of another version",
                found(STANDALONE, Unreadable, 600),
                vec![],
                Unknown,
                "",
            ),
        ];
        for (what, found, servers, standing, said) in table {
            let verdict = judge(&found, &servers, now());
            assert_eq!(verdict.standing, standing, "{what}: {verdict:?}");
            assert!(verdict.reason.contains(said), "{what}: {verdict:?}");
        }
    }

    #[test]
    fn what_was_adopted_is_judged_by_who_keeps_it() {
        use Standing::*;
        const KEEPER: &str = "keeper";
        let adopted = || {
            let keeper = Keeper { instance: "J".into(), uid: KEEPER.into() };
            Belongings { keeper: Some(keeper), ..found("I", RecordState::Readable, 600) }
        };
        let former = || knows("context here", "I", &[]);
        for (what, servers, standing) in [
            ("its host cluster has it", vec![former(), knows("b", "J", &[KEEPER])], Alive),
            ("its host cluster is silent", vec![former(), silent("b")], Unknown),
            ("its host cluster does not know it", vec![former(), knows("b", "J", &[])], Orphaned),
            ("its host cluster is gone", vec![former()], Gone),
            ("its first owner is back", vec![knows("a", "I", &[OWNER]), silent("b")], Alive),
        ] {
            let verdict = judge(&adopted(), &servers, now());
            assert_eq!(verdict.standing, standing, "{what}: {verdict:?}");
        }
        assert_eq!(adopted().instance(), "J", "which is to be named");
    }

    #[test]
    fn volumes_alone_are_never_in_the_making() {
        let mut left = found("I", RecordState::Missing, 0);
        (left.containers, left.networks, left.since, left.youngest) = (0, 0, None, None);
        assert_eq!(judge(&left, &[knows("a", "I", &[])], now()).standing, Standing::Orphaned);
    }

    #[test]
    fn naming_an_instance_permits_the_unknown_and_nothing_else() {
        use Standing::*;
        for (standing, unnamed, named) in [
            (Alive, false, false),
            (InTheMaking, false, false),
            (Orphaned, true, true),
            (Gone, true, true),
            (Leftover, true, true),
            (Unknown, false, true),
        ] {
            assert_eq!(
                (standing.removable(false), standing.removable(true)),
                (unnamed, named),
                "{standing:?}"
            );
        }
    }

    #[test]
    fn a_long_list_of_silent_api_servers_is_cut() {
        let many: Vec<_> = (0..5).map(|i| silent(&format!("context c{i}"))).collect();
        let reason = judge(&found("K", RecordState::Readable, 600), &many, now()).reason;
        assert!(
            reason.contains("c2") && !reason.contains("c3") && reason.ends_with("and 2 more"),
            "{reason}"
        );
    }
}
