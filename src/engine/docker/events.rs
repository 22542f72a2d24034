//! What wakes us.

use std::collections::HashMap;

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{Docker, failure::Call};
use crate::{
    api::label,
    engine::{EngineEvent, Result},
};

const KINDS: [&str; 4] = ["container", "network", "volume", "image"];

/// What changes an answer to a list call, or an image. Everything else is left out at the source,
/// above all `exec_*`, `extract-to-dir` and `archive-path`: our own looks into containers would
/// wake us to look again.
const ACTIONS: [&str; 19] = [
    "create",
    "start",
    "die",
    "oom",
    "pause",
    "unpause",
    "restart",
    "rename",
    "update",
    "destroy",
    "remove",
    "connect",
    "disconnect",
    "pull",
    "load",
    "import",
    "tag",
    "untag",
    "delete",
];

/// Events of objects from `since` until the connection ends. A stream has no bound in time, since
/// silence is what it is for; whoever listens minds that.
///
/// Docker does not say when it begins to listen for us. So it is asked for what has happened already
/// (it keeps the last 256 events), and it does not matter how long the request was on its way.
pub(super) fn events(
    docker: &Docker,
    since: Timestamp,
) -> impl Stream<Item = Result<EngineEvent>> + Send + use<> {
    let docker = docker.clone();
    futures::stream::once(async move {
        let client = docker.client().await?;
        let filters: HashMap<String, Vec<String>> = [
            ("type".to_owned(), KINDS.map(str::to_owned).to_vec()),
            ("event".to_owned(), ACTIONS.map(str::to_owned).to_vec()),
        ]
        .into();
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
        let events = client.events(Some(EventsOptionsBuilder::new().since(&since).filters(&filters).build()));
        let call = Call::new("listen to", "events", "");
        Ok(events.map(move |event| event.map(translate).map_err(|error| docker.failed(&call, error))))
    })
    .try_flatten()
}

fn translate(message: EventMessage) -> EngineEvent {
    let actor = message.actor.unwrap_or_default();
    let mut attributes = actor.attributes.unwrap_or_default();
    EngineEvent {
        at: message.time_nano.and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok()),
        kind: message.typ.map(|kind| kind.to_string()).unwrap_or_default(),
        action: message.action.unwrap_or_default(),
        owner: attributes.remove(label::OWNER),
        role: attributes.remove(label::ROLE),
        container: attributes.remove("container"),
        // A volume's name is its id.
        name: attributes.remove("name").or(actor.id).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker 20.10 and 26.1 write it.
    #[test]
    fn who_left_a_network_is_told_by_id() {
        let message = serde_json::json!({
            "Type": "network", "Action": "disconnect",
            "Actor": {"ID": "9a", "Attributes": {"container": "1f", "name": "shared", "type": "bridge"}},
            "scope": "local", "time": 1_767_225_600, "timeNano": 1_767_225_600_000_000_000_i64,
        });
        let event = translate(serde_json::from_value(message).unwrap());
        assert_eq!((event.kind.as_str(), event.action.as_str()), ("network", "disconnect"));
        assert_eq!((event.name.as_str(), event.container.as_deref()), ("shared", Some("1f")));
        assert_eq!((event.owner, event.role), (None, None));
    }
}
