//! The table of bad input: refused at once, with the field and the remedy, and nothing made.

use std::time::Duration;

use serde::Deserialize;

use crate::harness::{Cluster, Nest, Story, command::run_with_input};

/// The table, shared with the scenarios that go through kubectl.
const TABLE: &str = include_str!("../../bad-input.yaml");

/// At once.
const SOON: Duration = Duration::from_secs(3);

/// A row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What is wrong.
    pub name: String,
    /// The resource's spec, besides the version unless it names one.
    #[serde(default)]
    pub spec: serde_json::Value,
    /// The whole document, where more than the spec matters.
    #[serde(default)]
    pub document: Option<serde_json::Value>,
    /// The field that the message names.
    pub field: String,
    /// What the message says to do.
    pub text: String,
    /// `schema`: the API server refuses it. `condition`: the operator does, by a condition. The
    /// command line refuses both alike. `host`: the Docker host cannot have it, by a condition.
    #[serde(default)]
    pub how: How,
}

/// Who refuses a row.
#[derive(Deserialize, Default, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum How {
    #[default]
    Schema,
    Condition,
    Host,
}

/// Every row.
pub fn rows() -> Vec<Row> {
    serde_saphyr::from_str(TABLE).expect("e2e/bad-input.yaml is well formed")
}

impl Row {
    /// The resource as JSON, called `name`.
    pub fn resource(&self, name: &str) -> serde_json::Value {
        let mut resource = self.document.clone().unwrap_or_else(|| {
            let mut spec = self.spec.clone();
            if spec.get("version").is_none() {
                spec["version"] = crate::harness::nest::VERSION.into();
            }
            serde_json::json!({"spec": spec})
        });
        resource["apiVersion"] = "k3nest.dev/v1alpha1".into();
        resource["kind"] = "K3sCluster".into();
        if resource["metadata"]["name"].is_null() {
            resource["metadata"]["name"] = name.into();
        }
        resource
    }
}

/// Through the command line.
pub fn table() {
    let story = Story::new("bad_input");
    let rows = rows();
    assert!(rows.len() >= 24, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let cluster = Cluster::new("bad");
        let input = row.resource(&cluster.name).to_string();
        let apply = run_with_input(&mut Nest::new().command(&["apply", "-f", "-"]), input.as_bytes());
        let said = &apply.stderr;
        let code = if row.how == How::Host { 4 } else { 2 };
        if apply.code != code || apply.took > SOON || !said.contains(&row.field) || !said.contains(&row.text)
        {
            wrong.push(format!("{}: expected {:?} and {:?} of {apply}", row.name, row.field, row.text));
        }
        cluster.is_gone();
    }
    assert!(wrong.is_empty(), "{} rows went wrong:\n{}", wrong.len(), wrong.join("\n"));
    let conditions = rows.iter().filter(|row| row.how != How::Schema).count();
    story.tell(&format!(
        "{} rows refused at once, {conditions} of them by rules that only a condition can tell",
        rows.len()
    ));
}
