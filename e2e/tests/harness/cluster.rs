//! A cluster of one scenario, gone at its end whatever happens.

use super::{
    Finished, Nest, Story,
    docker::{docker, import_image, inspected, labelled},
    kubectl::Kubectl,
    nest::{VERSION, nest},
    pick::{self, Scratch},
    recorder,
};

/// How much of each log a failure shows.
const TAIL: &str = "60";

/// A cluster of the CLI. Dropping it removes it; after a panic, its state is printed first.
pub struct Cluster {
    pub name: String,
    pub namespace: String,
    /// Where its files are written.
    pub scratch: Scratch,
    /// Which k3nest it belongs to.
    pub instance: String,
}

impl Cluster {
    /// A new name in the namespace default; nothing exists yet.
    pub fn new(what: &str) -> Self {
        Self::named(&pick::name(what), "default")
    }

    /// A name and a namespace; nothing exists yet.
    pub fn named(name: &str, namespace: &str) -> Self {
        recorder::watch(name);
        Self {
            name: name.into(),
            namespace: namespace.into(),
            scratch: Scratch::new(),
            instance: "standalone".into(),
        }
    }

    /// The resource with `spec`, which are lines of YAML, indented or not, besides the version.
    pub fn document(&self, spec: &str) -> String {
        let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: k3nest.dev/v1alpha1\nkind: K3sCluster\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  version: {VERSION}\n{lines}",
            self.name, self.namespace
        )
    }

    /// Writes the resource with `spec` to its file and returns the path.
    pub fn write(&self, spec: &str) -> String {
        self.write_with(spec, "")
    }

    /// The same with further documents behind it.
    pub fn write_with(&self, spec: &str, documents: &str) -> String {
        self.scratch.file("cluster.yaml", &format!("{}---\n{documents}", self.document(spec)))
    }

    /// A Secret in its namespace, as a document.
    pub fn secret(&self, name: &str, data: &[(&str, &str)]) -> String {
        let data: String = data.iter().map(|(key, value)| format!("  {key}: {value:?}\n")).collect();
        let namespace = &self.namespace;
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n{data}---\n"
        )
    }

    /// Applies the resource with `spec`.
    pub fn apply(&self, spec: &str) -> Finished {
        nest(&["apply", "-f", &self.write(spec)])
    }

    /// The labels that all of its objects carry.
    pub fn labels(&self) -> Vec<String> {
        vec![
            format!("k3nest.dev/instance={}", self.instance),
            format!("k3nest.dev/name={}", self.name),
            format!("k3nest.dev/namespace={}", self.namespace),
        ]
    }

    /// Names of its objects of a kind, sorted.
    pub fn objects(&self, kind: &str) -> Vec<String> {
        labelled(kind, &self.labels())
    }

    /// Everything of it in Docker, as kind and name.
    pub fn all_objects(&self) -> Vec<(&'static str, String)> {
        ["container", "network", "volume"]
            .into_iter()
            .flat_map(|kind| self.objects(kind).into_iter().map(move |name| (kind, name)))
            .collect()
    }

    /// Everything of a cluster with one server is there once.
    #[track_caller]
    pub fn is_whole(&self) {
        let of_role = |kind: &str, role: &str| {
            let mut labels = self.labels();
            labels.push(format!("k3nest.dev/role={role}"));
            labelled(kind, &labels).len()
        };
        let roles = [
            ("container", "server"),
            ("container", "loadbalancer"),
            ("network", "network"),
            ("volume", "data"),
            ("volume", "record"),
        ];
        for (kind, role) in roles {
            let count = of_role(kind, role);
            assert!(count == 1, "{count} of {kind} {role}: {:?}", self.all_objects());
        }
        assert_eq!(self.objects("container").len(), 2, "{:?}", self.all_objects());
    }

    /// Nothing of it is left in Docker.
    #[track_caller]
    pub fn is_gone(&self) {
        let left = self.all_objects();
        assert!(left.is_empty(), "left of {}: {left:?}", self.name);
    }

    /// The one container with `role`.
    #[track_caller]
    pub fn container(&self, role: &str) -> String {
        let mut labels = self.labels();
        labels.push(format!("k3nest.dev/role={role}"));
        let mut names = labelled("container", &labels);
        assert!(names.len() == 1, "{} has {} containers of role {role}: {names:?}", self.name, names.len());
        names.remove(0)
    }

    /// The container of its server.
    #[track_caller]
    pub fn server(&self) -> String {
        self.container("server")
    }

    /// The id of the one container with `role`, which tells whether it was replaced.
    #[track_caller]
    pub fn id(&self, role: &str) -> String {
        let facts = inspected("container", &self.container(role));
        facts["Id"].as_str().expect("an id").to_owned()
    }

    /// Name of its server's Node.
    pub fn node(&self) -> String {
        format!("{}-server-0", self.name)
    }

    /// Brings the workload image into its server.
    pub fn import(&self, image: &str) {
        import_image(image, &self.server());
    }

    /// k3nest's verb on this cluster.
    pub fn verb(&self, words: &[&str]) -> Finished {
        nest(&[words, &[&self.name, "-n", &self.namespace]].concat())
    }

    /// kubectl with the kubeconfig that k3nest prints.
    #[track_caller]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.verb(&["kubeconfig", "get"]).ok())
    }

    /// Deletes it and checks that nothing is left.
    #[track_caller]
    pub fn delete(&self, story: &Story) {
        let deleted = self.verb(&["delete"]).exits(0);
        story.tell(&format!("deleted in {:.1?}", deleted.took));
        self.is_gone();
    }

    fn print_state(&self) {
        let show = |text: String| eprintln!("--- {text}");
        show(self.verb(&["get", "clusters", "-o", "wide"]).to_string());
        for container in self.objects("container") {
            show(docker(&["logs", "--tail", TAIL, &container]).to_string());
        }
        show(format!("objects: {:?}", self.all_objects()));
        show(format!("events:\n{}", recorder::last_events(&self.name).join("\n")));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- state of {}/{} after the failure", self.namespace, self.name);
            self.print_state();
        }
        if self.all_objects().is_empty() {
            return;
        }
        if self.instance == "standalone" {
            Nest::new().run(&["delete", &self.name, "-n", &self.namespace]);
        }
        for (kind, name) in self.all_objects() {
            let force: &[&str] = if kind == "container" { &["-f", "-v"] } else { &[] };
            docker(&[&[kind, "rm"], force, &[&name]].concat());
        }
    }
}
