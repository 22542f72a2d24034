//! Whether a resource may take over what another uid left in Docker, and as whom it then acts there.
//!
//! Labels of Docker objects cannot be changed: they name the first owner for life. Who has adopted a
//! cluster since is its keeper, in the record. Whoever else comes, the first owner too, keeps away.

use super::{Keeper, Record, Volume};
use crate::api::{ADOPT_ANNOTATION, Blocked, Identity, Reason, Role, STANDALONE, is_uid, label};

/// Who acts for a cluster that was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopter {
    /// Who it is.
    pub keeper: Keeper,
    /// uid of another keeper from whom it may take the cluster over.
    pub from: Option<String>,
}

/// As whom a resource acts in Docker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acting {
    /// The owner that the objects name.
    pub identity: Identity,
    /// The resource, where that is another.
    pub adopter: Option<Adopter>,
}

/// What a resource asks to adopt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The owner that the objects name.
    pub owner: &'a str,
    /// uid of the keeper from whom they are to be taken over.
    pub from: Option<&'a str>,
}

/// As whom the resource `own` acts when it adopts what is `wanted`. `records` are all record volumes on
/// the engine, `left` everybody who has objects there under that owner, where no record is; `is_gone`
/// tells of a keeper that it exists no more. Nothing is changed before this was found out.
///
/// # Errors
/// Where `wanted` is no uid, has nothing here, or may not be taken over, and what to write instead.
pub fn adopt(
    own: &Identity,
    wanted: Wanted<'_>,
    records: &[Volume],
    left: &[Identity],
    is_gone: impl Fn(&Keeper) -> bool,
) -> Result<Acting, Blocked> {
    let Wanted { owner, from } = wanted;
    let blocked =
        |reason, text: String| Err(Blocked::new(reason, format!("annotation {ADOPT_ANNOTATION}: {text}")));
    if let Some(word) = [Some(owner), from].into_iter().flatten().find(|word| !is_uid(word)) {
        return blocked(
            Reason::AdoptionInvalid,
            format!("{word:?} is not a uid; write the owner that k3nest prune prints, such as {}", own.uid),
        );
    }
    let of = |uid: &str| {
        let records = records.iter().filter(|v| v.role() == Some(Role::Record));
        records.map(|volume| &volume.labels).find(|labels| labels.get(label::OWNER).is_some_and(|o| o == uid))
    };
    let recorded = of(owner).map(Identity::of_labels);
    // By its volumes and containers, where somebody has taken the record away.
    let fits = |left: &&Identity| {
        left.instance != STANDALONE && (&left.namespace, &left.name) == (&own.namespace, &own.name)
    };
    let found = recorded.or_else(|| left.iter().find(fits).or(left.first()).cloned());
    let Some(found) = found else {
        return blocked(
            Reason::AdoptionNotFound,
            format!(
                "owner {owner} has nothing on this Docker engine; write an owner that k3nest prune prints, or create the resource without the annotation"
            ),
        );
    };
    if found.instance == STANDALONE {
        return blocked(
            Reason::AdoptionConflict,
            format!(
                "owner {owner} is cluster {found} of the command line, which keeps it; remove the annotation"
            ),
        );
    }
    if (&found.namespace, &found.name) != (&own.namespace, &own.name) {
        return blocked(
            Reason::AdoptionMismatch,
            format!(
                "owner {owner} is cluster {found}, and this is {own}; create the resource as {} in namespace {}",
                found.name, found.namespace
            ),
        );
    }
    if of(&own.uid).is_some() {
        return blocked(
            Reason::AdoptionConflict,
            format!(
                "this resource has objects of its own (owner {}) beside those of {owner}; to keep its own, remove the annotation; to keep those of {owner}, delete the resource, which removes its own alone, and create it again with the annotation",
                own.uid
            ),
        );
    }
    let keeper = of(owner).and_then(Record::from_labels).and_then(|record| record.keeper);
    let gone = keeper.as_ref().filter(|keeper| is_gone(keeper)).map(|keeper| keeper.uid.clone());
    let adopter = Adopter { keeper: Keeper::of(own), from: gone.or_else(|| from.map(str::to_owned)) };
    refuse_other_keeper(keeper.as_ref(), &found, Some(&adopter))?;
    Ok(Acting { identity: found, adopter: Some(adopter) })
}

/// The clusters that the resource `own` has adopted.
pub fn adopted_by(own: &Identity, records: &[Volume]) -> Vec<Acting> {
    let keeper = Keeper::of(own);
    let kept = records.iter().filter(|volume| {
        volume.role() == Some(Role::Record)
            && Record::from_labels(&volume.labels)
                .is_some_and(|record| record.keeper.as_ref() == Some(&keeper))
    });
    let acting = |volume: &Volume| Acting {
        identity: Identity::of_labels(&volume.labels),
        adopter: Some(Adopter { keeper: keeper.clone(), from: None }),
    };
    let mut all: Vec<Acting> = Vec::new();
    for one in kept.map(acting) {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// Refuses to act for the cluster `identity`, which has this `keeper`, to everybody else: to its first
/// owner (no `adopter`), and to one who has adopted it before, or would without saying from whom.
///
/// # Errors
/// With who looks after it, and what to write.
pub fn refuse_other_keeper(
    keeper: Option<&Keeper>,
    identity: &Identity,
    adopter: Option<&Adopter>,
) -> Result<(), Blocked> {
    let Some(Keeper { instance, uid }) = keeper else { return Ok(()) };
    let next = match adopter {
        Some(Adopter { keeper: own, from }) => {
            if Some(own) == keeper || from.as_ref() == Some(uid) {
                return Ok(());
            }
            format!(
                "if that is gone for good, and to take the cluster over from it, write {ADOPT_ANNOTATION}: {}:{uid}",
                identity.uid
            )
        }
        None => "delete this resource, which removes nothing of the cluster".to_owned(),
    };
    Err(Blocked::new(
        Reason::AdoptionConflict,
        format!(
            "owner {}: the cluster was adopted, and the resource {uid} of instance {instance} looks after it now; {next}",
            identity.uid
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::record as a_record;

    const OWN: &str = "12345678-9abc-4def-8000-000000000000";
    const FORMER: &str = "87654321-9abc-4def-8000-000000000000";
    const OTHER: &str = "11111111-9abc-4def-8000-000000000000";

    fn identity(instance: &str, uid: &str, name: &str) -> Identity {
        Identity { instance: instance.into(), uid: uid.into(), namespace: "team".into(), name: name.into() }
    }

    fn record(of: &Identity) -> Volume {
        Volume { name: of.object_name("x"), labels: of.labels(Role::Record) }
    }

    fn keeper(instance: &str, uid: &str) -> Keeper {
        Keeper { instance: instance.into(), uid: uid.into() }
    }

    /// A record that says who has adopted the cluster.
    fn kept(of: &Identity, keeper: Keeper) -> Volume {
        let record = Record { keeper: Some(keeper), ..a_record() };
        let crate::plan::VolumeWant { name, labels } = record.volume(of);
        Volume { name, labels }
    }

    fn former() -> Identity {
        identity("OLD", FORMER, "dev")
    }

    /// By the resource of uid [`OWN`] in the instance NEW, where no other keeper is left.
    fn adopts(owner: &str, from: Option<&str>, records: &[Volume]) -> Result<Acting, Blocked> {
        let own = identity("NEW", OWN, "dev");
        adopt(&own, Wanted { owner, from }, records, &[], |keeper| keeper.instance == "NEW")
    }

    #[test]
    fn only_a_cluster_of_the_same_name_that_nobody_else_has_is_adopted() {
        let own = identity("NEW", OWN, "dev");
        let neighbour = identity("OLD", OTHER, "other");
        let data = Volume { name: "data".into(), labels: former().labels(Role::Data) };
        for (what, wanted, records, expected) in [
            ("the former one", FORMER, vec![record(&neighbour), record(&former())], Ok(former())),
            (
                "of the same instance",
                FORMER,
                vec![record(&identity("NEW", FORMER, "dev"))],
                Ok(identity("NEW", FORMER, "dev")),
            ),
            ("no uid", "dev", vec![record(&former())], Err(Reason::AdoptionInvalid)),
            ("nothing", "", vec![record(&former())], Err(Reason::AdoptionInvalid)),
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
            ("beside its own", FORMER, vec![record(&former()), record(&own)], Err(Reason::AdoptionConflict)),
        ] {
            let adopted = adopts(wanted, None, &records);
            if let Err(blocked) = &adopted {
                assert!(blocked.message.contains(ADOPT_ANNOTATION), "{what}: {blocked}");
            }
            let adopted = adopted.map(|acting| acting.identity).map_err(|blocked| blocked.reason);
            assert_eq!(adopted, expected, "{what}");
        }
    }

    #[test]
    fn a_cluster_whose_record_is_gone_is_known_by_what_is_left() {
        let own = identity("NEW", OWN, "dev");
        let wanted = Wanted { owner: FORMER, from: None };
        let adopted = adopt(&own, wanted, &[], &[former()], |_| false).unwrap();
        assert_eq!(adopted.identity, former());
        let elsewhere = identity("OLD", FORMER, "prod");
        let refused = adopt(&own, wanted, &[], &[elsewhere], |_| false).unwrap_err();
        assert_eq!(refused.reason, Reason::AdoptionMismatch);
    }

    #[test]
    fn who_has_adopted_a_cluster_keeps_it_until_somebody_says_its_name() {
        let own = keeper("NEW", OWN);
        for (what, from, of, expected) in [
            ("its own", None, own.clone(), true),
            ("another instance's", None, keeper("ELSEWHERE", OTHER), false),
            ("another instance's, named", Some(OTHER), keeper("ELSEWHERE", OTHER), true),
            ("another instance's, another named", Some(FORMER), keeper("ELSEWHERE", OTHER), false),
            ("a resource that is gone from the own API server", None, keeper("NEW", OTHER), true),
            ("no uid", Some("dev"), own.clone(), false),
        ] {
            let adopted = adopts(FORMER, from, &[kept(&former(), of)]);
            assert_eq!(adopted.is_ok(), expected, "{what}: {adopted:?}");
            if let (Err(blocked), None) = (adopted, from) {
                assert!(blocked.message.contains(&format!("{FORMER}:{OTHER}")), "{blocked}");
            }
        }
        // The first owner, who is back, has no say in it.
        let refused = refuse_other_keeper(Some(&own), &former(), None).unwrap_err();
        assert!(refused.message.contains("removes nothing"), "{refused}");
        refuse_other_keeper(None, &former(), None).unwrap();
    }

    #[test]
    fn what_a_resource_has_adopted_is_found_without_its_annotation() {
        let own = identity("NEW", OWN, "dev");
        let records = [
            record(&identity("OLD", OTHER, "prod")),
            kept(&former(), keeper("NEW", OWN)),
            kept(&identity("OLD", OTHER, "dev"), keeper("ELSEWHERE", OTHER)),
        ];
        let adopted: Vec<Identity> = adopted_by(&own, &records).into_iter().map(|a| a.identity).collect();
        assert_eq!(adopted, [former()]);
    }
}
