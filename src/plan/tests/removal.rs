use serde_json::json;

use super::*;
use crate::api::Role;

#[test]
fn containers_go_first_and_the_record_last() {
    let want = wanted(&input(json!({})), &record());
    insta::assert_snapshot!(text(&removal(&settled(&want))).join("\n"));
}

/// After a cut it must still be known whose the rest is, and that there were data.
#[test]
fn whatever_is_left_after_a_cut_holds_the_record_until_the_end() {
    let want = wanted(&input(json!({})), &record());
    let all = settled(&want);
    let plan = removal(&all);
    let record = all.volumes.iter().find(|v| v.role() == Some(Role::Record)).unwrap();
    let last = plan.steps.last().unwrap();
    assert_eq!(last.action, Action::RemoveVolume(record.name.clone()));
    assert_eq!(last.after.len(), plan.steps.len() - 1);
}

#[test]
fn nothing_is_removed_of_nothing() {
    assert!(removal(&Observed::default()).is_settled());
}
