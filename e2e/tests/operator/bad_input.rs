//! The table of bad input, through kubectl: the API server refuses a row at once, or a condition
//! says what is wrong; either way with the field and the remedy. Other clusters go on meanwhile.

use std::time::{Duration, Instant};

use crate::{
    harness::{Story, within},
    host::host,
    space::Space,
    table::{How, Row, rows},
    tenant::Tenant,
};

/// How long a condition may take.
const SOON: Duration = Duration::from_secs(10);

/// Every row.
pub fn table() {
    let story = Story::new("bad_input");
    let space = Space::new("bad");
    let good = Tenant::new("good", &space);
    good.apply("");
    let rows = rows();
    let mut wrong = Vec::new();
    let mut accepted = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let name = format!("bad-{i}");
        let said = apply(&space, row, &name);
        match (row.how, said) {
            (How::Schema, Err(said)) if fits(row, &said) => {}
            (How::Condition | How::Host, Ok(())) => {
                accepted.push((row, Tenant::new(&name, &space), Instant::now()))
            }
            (_, said) => {
                wrong.push(format!("{}: wanted {:?} and {:?}: {said:?}", row.name, row.field, row.text));
                space.run(&["delete", "k3scluster", &name, "--ignore-not-found", "--wait=false"]);
            }
        }
    }
    for (row, tenant, since) in &accepted {
        let stalled =
            within(SOON, &format!("a condition for: {}", row.name), || match tenant.condition("Stalled") {
                stalled if stalled.status == "True" => Ok(stalled),
                stalled => Err(format!("{stalled:?}")),
            });
        if !fits(row, &stalled.message) {
            wrong.push(format!("{} ({:.1?}): {stalled:?}", row.name, since.elapsed()));
        }
        assert!(tenant.all_objects().is_empty(), "{}: {:?}", row.name, tenant.all_objects());
    }
    good.is_ready();
    story.tell(&format!(
        "{} rows refused at once, {} by a condition; a good one became Ready meanwhile",
        rows.len() - accepted.len(),
        accepted.len()
    ));
    space.run(&["delete", "k3scluster", "--all", "--timeout=60s"]).ok();
    drop(accepted);
    assert!(wrong.is_empty(), "{} rows went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Applies a row; what kubectl said, if it was refused.
fn apply(space: &Space, row: &Row, name: &str) -> Result<(), String> {
    let mut resource = row.resource(name);
    resource["metadata"]["namespace"] = space.name.as_str().into();
    let file = crate::harness::pick::Scratch::new();
    let path = file.file("row.json", &resource.to_string());
    let applied = host().kubectl.run(&["apply", "-f", &path]);
    if applied.code == 0 { Ok(()) } else { Err(applied.stderr) }
}

/// The API server begins its own sentences with a capital.
fn fits(row: &Row, said: &str) -> bool {
    let said = said.to_lowercase();
    [&row.field, &row.text].iter().all(|part| said.contains(&part.to_lowercase()))
}
