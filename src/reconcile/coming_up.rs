//! Waiting for a cluster that comes up. What it waits for is said by the nested API, which is asked
//! itself: a step would ask Docker for everything each time, on the very processors that the
//! cluster comes up on.

use std::{future::Future, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{Request, World, converge::Seen, inside};
use crate::{
    api::{K3sClusterStatus, Role, condition},
    engine::Engine,
    k3s::{Access, ClusterApi, KUBECONFIG_PATH, NodeFacts},
    plan::Observed,
};

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(150);

/// Between two looks for a kubeconfig, which Docker takes out of a container.
const READ_EVERY: Duration = Duration::from_millis(300);

/// A step sees what the API does not say: crashes, and what others have done in Docker.
const STEP_EVERY: Duration = Duration::from_secs(2);

/// How long news that is not the last is kept, so that nodes that come together cost one step.
const GATHER: Duration = Duration::from_secs(1);

/// How soon to look again while nodes come up: kubelets report within a second or so.
const COMING_UP: Duration = Duration::from_millis(400);

/// How long a cluster may take to come up before it is looked at less and less often. Three servers that
/// are made take half a minute at worst.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How seldom what comes up is looked at in the end.
const SELDOM: Duration = Duration::from_secs(10);

/// A cluster whose containers run and whose nodes are not all Ready.
#[derive(Clone, Debug)]
pub struct ComingUp {
    way_in: WayIn,
    /// Names of all its nodes, and which of them were Ready.
    nodes: Vec<(String, bool)>,
    /// When a step is due without any news.
    step_after: Duration,
}

#[derive(Clone, Debug)]
enum WayIn {
    /// Not known before k3s has written its kubeconfig in one of these containers.
    Unknown(Vec<String>),
    /// The API, behind which there are so many servers.
    Known { access: Access, url: String, servers: usize },
}

impl ComingUp {
    /// What `seen` waits for, where a step is to follow after `recheck`.
    pub(super) fn of(
        request: &Request,
        seen: &Seen,
        status: &K3sClusterStatus,
        recheck: Duration,
    ) -> Option<Self> {
        let record = seen.record.as_ref()?;
        let (address, port) = inside::own_way_in(request, record).into_iter().next()?;
        let servers = seen.observed.containers.iter().filter(|c| c.role() == Some(Role::Server));
        let way_in = match &seen.access {
            None => WayIn::Unknown(servers.map(|c| c.id.clone()).collect()),
            Some(access) => WayIn::Known {
                access: access.clone(),
                url: seen.url.clone().unwrap_or_else(|| format!("https://{address}:{port}")),
                servers: seen.servers(),
            },
        };
        let nodes = status.nodes.iter().map(|node| (node.name.clone(), node.ready)).collect();
        Some(Self { way_in, nodes, step_after: recheck.max(STEP_EVERY) })
    }

    /// Waits until another step has something to find: a kubeconfig, all nodes Ready, some more for
    /// a while, or two seconds gone, which become more where it takes long. `hear` is told why the API is
    /// not ready.
    pub async fn news<E: Engine, A: ClusterApi>(&self, world: &World<E, A>, hear: impl Fn(&str)) {
        let asking = async {
            match &self.way_in {
                WayIn::Unknown(servers) => self.kubeconfig(world, servers).await,
                WayIn::Known { access, url, servers } => {
                    self.nodes(hear, || world.clusters.probe(access, url, *servers)).await;
                }
            }
        };
        let _ = tokio::time::timeout(self.step_after, asking).await;
    }

    /// Waits until one of the `servers` has a kubeconfig.
    async fn kubeconfig<E: Engine, A>(&self, world: &World<E, A>, servers: &[String]) {
        loop {
            tokio::time::sleep(READ_EVERY).await;
            for server in servers {
                if matches!(world.engine.read_file(server, KUBECONFIG_PATH).await, Ok(Some(_))) {
                    return;
                }
            }
        }
    }

    /// Waits until more nodes are Ready than were, or fewer.
    async fn nodes<F: Future<Output = Result<Vec<NodeFacts>, String>>>(
        &self,
        hear: impl Fn(&str),
        ask: impl Fn() -> F,
    ) {
        let before = self.nodes.iter().filter(|(_, ready)| *ready).count();
        let mut give_up: Option<Instant> = None;
        while give_up.is_none_or(|at| Instant::now() < at) {
            tokio::time::sleep(ASK_EVERY).await;
            match ask().await {
                Err(why) => hear(&why),
                Ok(facts) => match self.ready(&facts) {
                    Some(ready) if ready == self.nodes.len() => return,
                    Some(ready) if ready == before => {}
                    Some(_) => drop(give_up.get_or_insert_with(|| Instant::now() + GATHER)),
                    None => return,
                },
            }
        }
    }

    /// How many nodes are Ready now; None if a node that was is no longer.
    fn ready(&self, facts: &[NodeFacts]) -> Option<usize> {
        let is_ready = |name: &str| facts.iter().any(|node| node.name == name && node.ready);
        let still = self.nodes.iter().all(|(name, was)| !was || is_ready(name));
        still.then(|| self.nodes.iter().filter(|(name, _)| is_ready(name)).count())
    }
}

/// How soon to look again at what is not Ready yet: the longer that lasts, the later, since what has not
/// come in a minute seldom comes within the next second. A container that was made since may come up as
/// fast as any.
pub(super) fn look_again(request: &Request, observed: Option<&Observed>, now: Timestamp) -> Duration {
    let ready = request.former.conditions.iter().find(|c| c.type_ == condition::READY);
    let Some(waits) = ready.filter(|c| c.status != "True") else { return COMING_UP };
    let containers = observed.iter().flat_map(|observed| &observed.containers);
    let made = containers.filter(|c| c.role() != Some(Role::Probe)).map(|c| c.created).max();
    let since = made.map_or(waits.last_transition_time.0, |made| made.max(waits.last_transition_time.0));
    let late = (now.duration_since(since) - PATIENCE).max(SignedDuration::ZERO).unsigned_abs();
    (late / 10).clamp(COMING_UP, SELDOM)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        api::{Reason, set_condition},
        sim::{
            lab::{Lab, host},
            specs::{Draft, dev},
        },
    };

    fn cluster(nodes: &[(&str, bool)]) -> ComingUp {
        let nodes = nodes.iter().map(|(name, ready)| ((*name).to_owned(), *ready)).collect();
        ComingUp { way_in: WayIn::Unknown(Vec::new()), nodes, step_after: STEP_EVERY }
    }

    fn ready(names: &[&str]) -> Vec<NodeFacts> {
        let node = |name: &&str| NodeFacts { name: (*name).to_owned(), ready: true, ..NodeFacts::default() };
        names.iter().map(node).collect()
    }

    /// How long it takes until there is news, if the API answers so, one answer after the other.
    async fn news(cluster: &ComingUp, answers: &[&[&str]]) -> Duration {
        let (asked, began) = (Cell::new(0), Instant::now());
        let ask = || {
            let answer = ready(answers[asked.get().min(answers.len() - 1)]);
            asked.set(asked.get() + 1);
            std::future::ready(Ok(answer))
        };
        let _ = tokio::time::timeout(STEP_EVERY, cluster.nodes(|_| (), ask)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn all_nodes_are_news_at_once_and_some_of_them_after_a_while() {
        let two = cluster(&[("a", false), ("b", false)]);
        assert_eq!(news(&two, &[&["a", "b"]]).await, ASK_EVERY);
        assert_eq!(news(&two, &[&[], &["a"], &["a", "b"]]).await, ASK_EVERY * 3);
        let some = news(&two, &[&["a"]]).await;
        assert!((GATHER..STEP_EVERY).contains(&some), "{some:?}");
        assert_eq!(news(&two, &[&[]]).await.as_secs(), STEP_EVERY.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_no_longer_ready_is_news() {
        assert_eq!(news(&cluster(&[("a", true), ("b", false)]), &[&["b"]]).await, ASK_EVERY);
    }

    #[test]
    fn what_takes_long_is_looked_at_less_and_less_often() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let draft = Draft::default();
        let mut request = draft.request(&dev());
        let after = |request: &Request, observed: Option<&Observed>, second| {
            look_again(request, observed, at(second)).as_millis()
        };
        assert_eq!(after(&request, None, 1000), 400, "nothing was said yet");
        let conditions = &mut request.former.conditions;
        set_condition(conditions, condition::READY, Some(false), Reason::Progressing, "", None, at(0));
        let waits = [0, 14, 30, 60, 130, 100_000].map(|second| after(&request, None, second));
        assert_eq!(waits, [400, 400, 400, 3000, 10_000, 10_000]);
        assert_eq!(after(&request, None, -5), 400, "the clock was set back");

        let mut lab = Lab::new(host());
        lab.settle(&draft, &dev());
        let observed =
            Observed { containers: lab.engine.docker().list_containers(&[]), ..Observed::default() };
        let made = observed.containers.iter().map(|c| c.created.as_second()).max().unwrap();
        assert_eq!(after(&request, Some(&observed), made + 1), 400, "containers were made since");
        assert_eq!(after(&request, Some(&observed), made + 60), 3000);
    }
}
