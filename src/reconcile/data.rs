//! What lies in the data volumes of nodes. Looked at only where a node is about to start in a cluster
//! that was Ready, or stops again and again: a volume that was emptied looks like any other.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{files::random_hex, planner::Planner};
use crate::{
    api::{Role, label},
    engine::{Engine, EngineError, Probe},
    k3s::{ClusterApi, EPOCH_PATH, ETCD_DATABASE_PATH, ETCD_LOG_PATH, ETCD_TOMBSTONE_PATH, TOKEN_PATH},
    plan::{NodeData, Observed, Record, SERVER_POOL, Volume, VolumeWant},
};

/// Tells of each volume below /k3nest whether it holds a token, whether the data of an etcd member (as the
/// nodes' entrypoint tells it), when etcd wrote there last, in seconds, and which recovery it was part of.
/// By busybox, which is in every k3s image.
const LOOK: &str = r#"for volume in /k3nest/*; do
  token=- etcd=- written=- epoch=- db=$volume/server/db/etcd
  [ ! -s "$volume/k3nest/token" ] || token=token
  [ ! -s "$volume/k3nest/epoch" ] || read -r epoch <"$volume/k3nest/epoch"
  for file in "$db"/member/wal/*.wal; do
    [ -e "$file" ] || continue
    [ ! -s "$db/member/snap/db" ] || [ -e "$db/tombstone" ] || etcd=etcd
    time=$(date -r "$file" +%s) || continue
    [ "$written" != - ] && [ "$written" -ge "$time" ] || written=$time
  done
  echo "${volume##*/} $token $etcd $written $epoch"
done"#;

/// What lies in a volume.
#[derive(Debug, PartialEq)]
struct Found {
    data: NodeData,
    /// The recovery that it was part of last.
    epoch: Option<String>,
}

/// How closely volumes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Whether there is data. Of a node with a container, that is asked.
    Whether,
    /// Also when it was written to.
    When,
}

impl<E: Engine, A: ClusterApi> Planner<'_, E, A> {
    /// What lies in the data volumes of `observed`, by name.
    pub(super) async fn look_at_data(
        &self,
        record: &Record,
        observed: &Observed,
        look: Look,
    ) -> Result<BTreeMap<String, NodeData>, EngineError> {
        let volumes = observed.volumes.iter().filter(|v| v.role() == Some(Role::Data));
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut alone = Vec::new();
        for volume in volumes {
            let is_server = volume.labels.get(label::POOL).is_some_and(|pool| pool == SERVER_POOL);
            let asked = match container_of(observed, volume).filter(|_| look == Look::Whether) {
                Some(id) => Some(self.ask_container(id, is_server).await?),
                None => None,
            };
            match asked {
                Some(asked) if asked.data.token => drop(found.insert(volume.name.clone(), asked)),
                // A container that has gone since it was listed has nothing either: only a look into the
                // volume itself tells that data is lost.
                _ => alone.push(VolumeWant { name: volume.name.clone(), labels: volume.labels.clone() }),
            }
        }
        if self.read_only {
            // Nothing may be made to look with. What is not known to be lost is taken to be there.
            let data = NodeData { token: true, etcd: true, ..NodeData::default() };
            found.extend(alone.into_iter().map(|v| (v.name, Found { data, epoch: None })));
        } else if !alone.is_empty() {
            found.extend(self.probe_volumes(record, alone).await?);
        }
        let server = |volume: &str| {
            let volume = observed.volumes.iter().find(|v| v.name == volume)?;
            volume.member().filter(|member| member.pool == SERVER_POOL).map(|member| member.index)
        };
        let with_data = found.iter().filter(|(_, found)| found.data.etcd);
        let epochs = with_data.filter_map(|(volume, found)| Some((server(volume)?, found.epoch.clone())));
        let outgrown = record.outgrown(&epochs.collect());
        let judged = found.into_iter().map(|(volume, Found { mut data, .. })| {
            data.outgrown = data.etcd && server(&volume).is_some_and(|index| outgrown.contains(&index));
            // Before a cluster was Ready no data can be lost: what counts is whether a node was begun.
            data.begun = data.token && !record.initialised;
            (volume, data)
        });
        Ok(judged.collect())
    }

    async fn ask_container(&self, id: &str, is_server: bool) -> Result<Found, EngineError> {
        let engine = &self.world.engine;
        let (database, log, tombstone, epoch) = match is_server {
            true => tokio::try_join!(
                engine.has_path(id, ETCD_DATABASE_PATH),
                engine.has_path(id, ETCD_LOG_PATH),
                engine.has_path(id, ETCD_TOMBSTONE_PATH),
                engine.read_file(id, EPOCH_PATH)
            )?,
            false => (false, false, false, None),
        };
        // Last: where it is found, the container was still there when the others were looked for.
        let token = engine.read_file(id, TOKEN_PATH).await?;
        let token = token.is_some_and(|content| !content.is_empty());
        let epoch = epoch.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        let etcd = database && log && !tombstone;
        Ok(Found { data: NodeData { token, etcd, ..NodeData::default() }, epoch })
    }

    /// Looks into `volumes` in a container of their own.
    async fn probe_volumes(
        &self,
        record: &Record,
        volumes: Vec<VolumeWant>,
    ) -> Result<BTreeMap<String, Found>, EngineError> {
        let engine = &self.world.engine;
        let image = self.input.node_image(&record.node_image);
        if engine.inspect_image(&image).await?.is_none() {
            engine.pull_image(&image, &self.world.progress).await?;
        }
        let identity = &self.request.identity;
        let mounts = volumes.iter().map(|volume| (volume.clone(), format!("/k3nest/{}", volume.name)));
        let probe = Probe {
            name: identity.object_name(&format!("probe-{}", random_hex(3))),
            image,
            script: LOOK.into(),
            labels: identity.labels(Role::Probe),
            volumes: mounts.collect(),
        };
        let mut found = parse(&engine.run_once(&probe).await?);
        found.retain(|name, _| volumes.iter().any(|volume| volume.name == *name));
        if found.len() == volumes.len() {
            return Ok(found);
        }
        Err(EngineError::Busy {
            what: format!("look into the data volumes of {identity}"),
            message: format!("of {} volumes, {} were told of", volumes.len(), found.len()),
        })
    }
}

/// Id of the container of the node that `volume` belongs to.
fn container_of<'a>(observed: &'a Observed, volume: &Volume) -> Option<&'a str> {
    let node = volume.labels.get(label::NODE)?;
    let container = observed.containers.iter().find(|c| c.labels.get(label::NODE) == Some(node))?;
    Some(&container.id)
}

fn parse(text: &str) -> BTreeMap<String, Found> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let (token, etcd) = (words.next()? == "token", words.next()? == "etcd");
        let written = words.next()?.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let epoch = words.next().filter(|word| *word != "-").map(str::to_owned);
        Some((name, Found { data: NodeData { token, etcd, written, ..NodeData::default() }, epoch }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_says_is_understood() {
        let found = parse("a-data token etcd 1767225600 e1\nb-data token - - -\nhalf a\n");
        let written = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let data = NodeData { token: true, etcd: true, written, ..NodeData::default() };
        assert_eq!(found["a-data"], Found { data, epoch: Some("e1".into()) });
        let data = NodeData { token: true, ..NodeData::default() };
        assert_eq!(found["b-data"], Found { data, epoch: None });
        assert_eq!(found.len(), 2);
    }
}
