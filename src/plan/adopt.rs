//! Whether a resource may take over what another uid left in Docker, and as whom it then acts there.

use super::Volume;
use crate::api::{ADOPT_ANNOTATION, Blocked, Identity, Reason, Role, STANDALONE, is_uid, label};

/// The identity under which the objects of the uid `wanted` are looked after by the resource `own`.
/// `records` are all record volumes on the engine. Nothing is changed before this was found out.
///
/// # Errors
/// Where `wanted` is no uid, has nothing here, or may not be taken over, and what to write instead.
pub fn adopt(own: &Identity, wanted: &str, records: &[Volume]) -> Result<Identity, Blocked> {
    let blocked =
        |reason, text: String| Err(Blocked::new(reason, format!("annotation {ADOPT_ANNOTATION}: {text}")));
    if !is_uid(wanted) {
        return blocked(
            Reason::AdoptionInvalid,
            format!("{wanted:?} is not a uid; write the owner that k3nest prune prints, such as {}", own.uid),
        );
    }
    let of = |uid: &str| {
        let records = records.iter().filter(|v| v.role() == Some(Role::Record));
        records.map(|volume| &volume.labels).find(|labels| labels.get(label::OWNER).is_some_and(|o| o == uid))
    };
    let Some(labels) = of(wanted) else {
        return blocked(
            Reason::AdoptionNotFound,
            format!(
                "no cluster of owner {wanted} has its record on this Docker engine; write an owner that k3nest prune prints, or create the resource without the annotation"
            ),
        );
    };
    let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let found = Identity {
        instance: text(label::INSTANCE),
        uid: wanted.to_owned(),
        namespace: text(label::NAMESPACE),
        name: text(label::NAME),
    };
    if found.instance == STANDALONE {
        return blocked(
            Reason::AdoptionConflict,
            format!(
                "owner {wanted} is cluster {found} of the command line, which keeps it; remove the annotation"
            ),
        );
    }
    if (&found.namespace, &found.name) != (&own.namespace, &own.name) {
        return blocked(
            Reason::AdoptionMismatch,
            format!(
                "owner {wanted} is cluster {found}, and this is {own}; create the resource as {} in namespace {}",
                found.name, found.namespace
            ),
        );
    }
    if of(&own.uid).is_some() {
        return blocked(
            Reason::AdoptionConflict,
            format!(
                "this resource has objects of its own (owner {}) beside those of {wanted}; to keep its own, remove the annotation; to keep those of {wanted}, delete the resource, which removes its own alone, and create it again with the annotation",
                own.uid
            ),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "12345678-9abc-4def-8000-000000000000";
    const FORMER: &str = "87654321-9abc-4def-8000-000000000000";

    fn identity(instance: &str, uid: &str, name: &str) -> Identity {
        Identity { instance: instance.into(), uid: uid.into(), namespace: "team".into(), name: name.into() }
    }

    fn volume(of: &Identity, role: Role) -> Volume {
        Volume { name: of.object_name("x"), labels: of.labels(role) }
    }

    #[test]
    fn only_a_cluster_of_the_same_name_that_nobody_else_has_is_adopted() {
        let own = identity("NEW", OWN, "dev");
        let former = identity("OLD", FORMER, "dev");
        let record = |of: &Identity| volume(of, Role::Record);
        let neighbour = identity("OLD", "11111111-9abc-4def-8000-000000000000", "other");
        let data = volume(&former, Role::Data);
        for (what, wanted, records, expected) in [
            ("the former one", FORMER, vec![record(&neighbour), record(&former)], Ok(former.clone())),
            (
                "of the same instance",
                FORMER,
                vec![record(&identity("NEW", FORMER, "dev"))],
                Ok(identity("NEW", FORMER, "dev")),
            ),
            ("no uid", "dev", vec![record(&former)], Err(Reason::AdoptionInvalid)),
            ("nothing", "", vec![record(&former)], Err(Reason::AdoptionInvalid)),
            ("not there", FORMER, vec![record(&neighbour)], Err(Reason::AdoptionNotFound)),
            ("without a record", FORMER, vec![data], Err(Reason::AdoptionNotFound)),
            (
                "of another name",
                FORMER,
                vec![record(&identity("OLD", FORMER, "prod"))],
                Err(Reason::AdoptionMismatch),
            ),
            (
                "the command line's",
                FORMER,
                vec![record(&identity(STANDALONE, FORMER, "dev"))],
                Err(Reason::AdoptionConflict),
            ),
            ("beside its own", FORMER, vec![record(&former), record(&own)], Err(Reason::AdoptionConflict)),
        ] {
            let adopted = adopt(&own, wanted, &records);
            if let Err(blocked) = &adopted {
                assert!(blocked.message.contains(ADOPT_ANNOTATION), "{what}: {blocked}");
            }
            assert_eq!(adopted.map_err(|blocked| blocked.reason), expected, "{what}");
        }
    }
}
