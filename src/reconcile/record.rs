//! The record of a cluster from step to step: read, made again where it was lost, and written anew with
//! what has changed.

use std::collections::BTreeMap;

use super::{
    converge::Seen, data::Look, files::random_hex, inside::look_inside, planner::Planner, stop::Stop,
};
use crate::{
    api::{Blocked, Reason, Role, STANDALONE, label},
    engine::Engine,
    k3s::{ClusterApi, NodeFacts},
    plan::{self, InternalAccess, Observed, Record},
};

impl<E: Engine, A: ClusterApi> Planner<'_, E, A> {
    /// The record as it should be: the one in Docker with what has changed since, or a new one.
    pub(super) async fn record(&mut self, seen: &mut Seen) -> Result<Record, Stop> {
        if let Some(volume) = seen.observed.unreadable_record() {
            return Err(Blocked::new(
                Reason::RecordUnreadable,
                format!(
                    "the volume {volume} holds the cluster's record, and this version of k3nest cannot read it: a newer one may have written it. Nothing is done to the cluster; use that version again, or delete the cluster"
                ),
            )
            .into());
        }
        // What is written wins over what was to be written: another one may have been faster, and
        // its generation must not be replaced by an older one.
        let known = match (self.next_record.take(), seen.observed.record()) {
            (Some(next), Some(written)) if written.generation < next.generation => Some(next),
            (next, written) => written.or(next),
        };
        let known = known.or_else(|| self.remembered(&seen.observed));
        if known.is_none() {
            self.refuse_vanished(&seen.observed)?;
        }
        let Some(known) = known else {
            let engine_id = self.engine.id.clone();
            let salt = random_hex(16);
            let input = self.input.clone();
            if input.spec.network.as_ref().is_none_or(|n| n.name.is_none()) {
                self.learn_routes().await?;
            }
            let mut record = plan::allocate(&input, &engine_id, self.host_facts().await?, &salt)?;
            record.spec = self.request.keep_spec.clone();
            let left = servers_left(&seen.observed);
            if !left.is_empty() {
                // Nodes come after their record: it was lost, with all that had a copy of it.
                record.initialised = true;
                record.joined = left.into_iter().chain(0..self.request.spec.servers.replicas).collect();
                record.recover_nonce = self.lying_wish();
            }
            // Kept for the further rounds of this step: allocation is not repeated.
            self.next_record = Some(record.clone());
            return Ok(record);
        };
        if known.engine_id != self.engine.id {
            return Err(plan::engine_mismatch(&known.engine_id, &self.engine.id).into());
        }
        let adopter = self.request.adopter.as_ref();
        // What is remembered of a record that was lost may be of a former keeper: who adopts it is one.
        if adopter.is_none() || seen.observed.record().is_some() {
            plan::refuse_other_keeper(known.keeper.as_ref(), &self.request.identity, adopter)?;
        }
        self.refuse_other_token(&known)?;
        let guest = match &self.input.internal {
            InternalAccess::Join { network } if known.guest.as_ref().map(|g| &g.network) != Some(network) => {
                let input = self.input.clone();
                plan::allocate_guest(&input, self.host_facts().await?)?
            }
            InternalAccess::Join { .. } => known.guest.clone(),
            InternalAccess::None | InternalAccess::Gateway => None,
        };
        let explicit = self.request.spec.api.as_ref().and_then(|api| api.host_port);
        let api_port = match explicit.filter(|port| *port != known.api_port) {
            // Asked before the load balancer is replaced: one that cannot start helps nobody.
            Some(_) => {
                let input = self.input.clone();
                plan::next_port(&known, &input, self.host_facts().await?)?.api_port
            }
            None => known.api_port,
        };
        let known = self.recovered(known, seen).await?;
        let record = known.changed(|r| {
            if !r.initialised || r.servers == 0 {
                r.servers = self.request.spec.servers.replicas;
            }
            r.guest = guest;
            r.keeper = adopter.map(|adopter| adopter.keeper.clone());
            r.api_port = api_port;
            if self.request.keep_spec.is_some() {
                r.spec = self.request.keep_spec.clone();
            }
        });
        self.next_record = Some(record.clone());
        Ok(record)
    }

    /// The record as the cluster's objects remember it, where its volume is gone. What happened since
    /// they were made is not in it: the safe guess is that it has served, with every server that it was to
    /// have, also those of which nothing is left.
    fn remembered(&self, observed: &Observed) -> Option<Record> {
        let remembered = observed.remembered()?;
        Some(remembered.changed(|r| {
            r.initialised = true;
            r.joined = servers_left(observed).into_iter().chain(0..r.servers).collect();
            r.recover_nonce = self.lying_wish();
            r.spec.clone_from(&self.request.keep_spec);
        }))
    }

    /// The nonce of a wish that may have been lying there for long: whether it was noted is lost with the
    /// record, and it must not be carried out because of that. Who runs the command line has just asked.
    fn lying_wish(&self) -> Option<String> {
        let wish = self.request.recover.as_ref().filter(|_| self.request.identity.instance != STANDALONE);
        wish.map(|wish| wish.nonce.clone())
    }

    /// The record of a cluster that has served without k3nest ever seeing it Ready, as after an apply that
    /// did not wait: the server that is about to found it has no data, and others have theirs. None
    /// where that is not so.
    pub(super) async fn served_unseen(
        &mut self,
        record: &Record,
        plan: &plan::Plan,
        seen: &mut Seen,
    ) -> Result<Option<Record>, Stop> {
        let others = servers_left(&seen.observed).into_iter().any(|index| index > 0);
        if record.initialised || !others || !plan.founds() || self.read_only {
            return Ok(None);
        }
        let data = self.look_at_data(record, &seen.observed, Look::Whether).await?;
        seen.observed.data = Some(data);
        let served = plan::served_unseen(&self.request.identity, record, &seen.observed);
        if served.is_some() {
            // From now on a token alone is no data.
            seen.observed.data.iter_mut().flatten().for_each(|(_, data)| data.begun = false);
        }
        self.next_record = served.clone().or(self.next_record.take());
        Ok(served)
    }

    /// A cluster that has served, and of whose servers nothing at all is left, is not begun anew. Only to
    /// refuse something is a former report believed.
    fn refuse_vanished(&self, observed: &Observed) -> Result<(), Blocked> {
        match &self.request.former.version {
            Some(version) if servers_left(observed).is_empty() => Err(plan::data_lost(&format!(
                "the cluster ran {version} on this Docker engine, and nothing of its servers is left there"
            ))),
            _ => Ok(()),
        }
    }

    /// The record with the recovery that the request wishes for, each wish once.
    async fn recovered(&self, known: Record, seen: &mut Seen) -> Result<Record, Stop> {
        let Some(wish) = &self.request.recover else { return Ok(known) };
        if self.read_only || known.recover_nonce.as_ref() == Some(&wish.nonce) {
            return Ok(known);
        }
        let data = self.look_at_data(&known, &seen.observed, Look::When).await?;
        // Who names a survivor gives up data only of a cluster that does not answer.
        seen.record = Some(known.clone());
        look_inside(self.world, self.request, seen).await;
        let observed = Observed { data: Some(data), nodes: seen.readiness(), ..seen.observed.clone() };
        let identity = &self.request.identity;
        let record = plan::recover(identity, &known, &observed, wish)?;
        let begun = record.recovery.as_ref().filter(|recovery| known.recovery.as_ref() != Some(recovery));
        if let Some(recovery) = begun {
            (self.world.progress)(&format!(
                "keeping the data of {}; the other servers join it as new members",
                identity.node_name(plan::SERVER_POOL, recovery.survivor)
            ));
        } else if record.recover_nonce.as_ref() == Some(&wish.nonce) {
            (self.world.progress)("enough servers have their data, or answer: nothing is given up");
        }
        Ok(record)
    }

    fn refuse_other_token(&self, record: &Record) -> Result<(), Blocked> {
        let (Some(token), Some(mac)) = (self.input.token(), &record.token_mac) else { return Ok(()) };
        if plan::mac(&record.salt, token.expose()) == *mac {
            return Ok(());
        }
        Err(Blocked::new(
            Reason::TokenChanged,
            "spec.tokenSecretRef: the Secret holds another token than the one the cluster was made with; put the former one back (the cluster keeps using it)",
        ))
    }

    /// Notes in the record that a server was Ready, and with which version. Returns whether
    /// there is something to write.
    pub fn note_success(&mut self, seen: &Seen) -> bool {
        let (Some(record), Some(Ok(nodes))) = (&seen.record, &seen.nodes) else { return false };
        let servers: BTreeMap<&str, u32> = seen
            .nodes_wanted()
            .filter(|(_, node)| node.role == Role::Server)
            .filter_map(|(want, node)| Some((&*node.node_name, want.labels.get(label::INDEX)?.parse().ok()?)))
            .collect();
        let ready: Vec<&NodeFacts> =
            nodes.iter().filter(|n| n.ready && servers.contains_key(n.name.as_str())).collect();
        // Of equals the last counts: v1.36.1+k3s2 over v1.36.1+k3s1.
        let highest = record
            .highest_version
            .iter()
            .chain(ready.iter().map(|n| &n.version))
            .cloned()
            .max_by_key(|version| plan::version_numbers(version));
        let next = record.changed(|r| {
            r.initialised |= !ready.is_empty();
            r.joined.extend(ready.iter().filter_map(|node| servers.get(node.name.as_str())));
            r.highest_version = highest;
        });
        let news = next != *record;
        self.next_record = Some(next);
        news
    }
}

/// The servers that have a data volume.
fn servers_left(observed: &Observed) -> Vec<u32> {
    let servers = observed.members().into_iter().filter(|m| m.pool == plan::SERVER_POOL);
    servers.map(|m| m.index).collect()
}
