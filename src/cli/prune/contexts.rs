//! Which API servers kubeconfigs lead to.
//!
//! Files that are merged hide each other's entries of one name, and tools write the same few: every
//! kubeconfig of k3s has a context, a cluster and a user `default`. An API server that is hidden would
//! not be asked, and its clusters would count as gone; so each file's contexts are taken by themselves.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use kube::config::{Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use serde_json::Value;

use crate::{k3s::root_cause, plan::ApiServer};

/// A context to ask.
#[derive(Debug)]
pub struct Asked {
    /// How people tell it from others.
    pub name: String,
    /// The context, and what it refers to.
    pub config: Kubeconfig,
    /// Its name in `config`.
    pub context: String,
}

/// The contexts in the kubeconfigs `given`, or in those that kubectl reads, and the files that cannot be
/// read: who is in them cannot be asked.
pub fn contexts(given: Option<&Path>) -> (Vec<Asked>, Vec<ApiServer>) {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let files = files(given, variable("KUBECONFIG"), variable("HOME"));
    let (mut read, mut silent) = (Vec::new(), Vec::new());
    for path in files {
        match Kubeconfig::read_from(&path) {
            Ok(config) => read.push((path, config)),
            Err(error) => silent.push(unread(&path, root_cause(&error))),
        }
    }
    (asked(&read), silent)
}

fn unread(path: &Path, why: String) -> ApiServer {
    ApiServer { name: format!("kubeconfig {}", path.display()), answer: Err(why) }
}

/// The files to read, each once. One that is named is to be there; the usual one need not be.
fn files(given: Option<&Path>, listed: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    let named = match (given, listed) {
        (Some(path), _) => vec![path.to_owned()],
        (None, Some(list)) => std::env::split_paths(&list).collect(),
        (None, None) => {
            let usual = home.map(|home| PathBuf::from(home).join(".kube/config"));
            usual.filter(|path| path.try_exists().unwrap_or(true)).into_iter().collect()
        }
    };
    for path in named.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        if !files.contains(&path) {
            files.push(path);
        }
    }
    files
}

/// The contexts of `files`, one of those that lead to the same server as the same user.
fn asked(files: &[(PathBuf, Kubeconfig)]) -> Vec<Asked> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, config) in files {
        for named in &config.contexts {
            *uses.entry(&named.name).or_default() += 1;
        }
    }
    let mut found: Vec<(Asked, Option<Value>)> = Vec::new();
    for (path, config) in files {
        for NamedContext { name, context, .. } in &config.contexts {
            let Some(context) = context else { continue };
            let config = resolved(name, context, config, files);
            let key = goal(&config);
            if key.is_some() && found.iter().any(|(_, known)| *known == key) {
                continue;
            }
            let several = uses.get(name.as_str()).is_some_and(|uses| *uses > 1);
            let of = if several { format!(" of {}", path.display()) } else { String::new() };
            found.push((Asked { name: format!("context {name}{of}"), config, context: name.clone() }, key));
        }
    }
    found.into_iter().map(|(asked, _)| asked).collect()
}

/// A kubeconfig with nothing but one context. What that refers to is its own file's; where it has no such
/// entry, that of the first file which has, as kubectl merges them.
fn resolved(name: &str, context: &Context, own: &Kubeconfig, files: &[(PathBuf, Kubeconfig)]) -> Kubeconfig {
    let all = || std::iter::once(own).chain(files.iter().map(|(_, config)| config));
    let cluster = |named: &&NamedCluster| named.name == context.cluster && named.cluster.is_some();
    let user =
        |named: &&NamedAuthInfo| Some(&named.name) == context.user.as_ref() && named.auth_info.is_some();
    Kubeconfig {
        clusters: all()
            .find_map(|config| config.clusters.iter().find(cluster))
            .cloned()
            .into_iter()
            .collect(),
        auth_infos: all()
            .find_map(|config| config.auth_infos.iter().find(user))
            .cloned()
            .into_iter()
            .collect(),
        contexts: vec![NamedContext {
            name: name.into(),
            context: Some(context.clone()),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    }
}

/// Where a context leads, and as whom, whatever the entries are called; None if it leads nowhere.
fn goal(config: &Kubeconfig) -> Option<Value> {
    let cluster = Cluster { extensions: None, ..config.clusters.first()?.cluster.clone()? };
    let user = config.auth_infos.first().and_then(|named| named.auth_info.as_ref());
    serde_json::to_value((cluster, user)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Vec<(String, String, Option<String>)> {
        let parsed: Vec<(PathBuf, Kubeconfig)> =
            files.iter().map(|(path, text)| (path.into(), Kubeconfig::from_yaml(text).unwrap())).collect();
        let server = |asked: &Asked| asked.config.clusters.first()?.cluster.as_ref()?.server.clone();
        let user = |asked: &Asked| asked.config.auth_infos.first()?.auth_info.as_ref()?.username.clone();
        asked(&parsed).iter().map(|a| (a.name.clone(), server(a).unwrap_or_default(), user(a))).collect()
    }

    fn expected(rows: &[(&str, &str, &str)]) -> Vec<(String, String, Option<String>)> {
        let user = |user: &str| Some(user.to_owned()).filter(|user| !user.is_empty());
        rows.iter().map(|(name, server, who)| ((*name).into(), (*server).into(), user(who))).collect()
    }

    /// A kubeconfig as k3s writes it.
    fn of_k3s(server: &str) -> String {
        format!(
            "
contexts: [{{name: default, context: {{cluster: default, user: default}}}}]
clusters: [{{name: default, cluster: {{server: '{server}'}}}}]
users: [{{name: default, user: {{username: admin}}}}]
current-context: default
"
        )
    }

    #[test]
    fn every_api_server_of_a_kubeconfig_is_asked_once() {
        let text = "
contexts:
- {name: a, context: {cluster: one, user: me}}
- {name: a-kube-system, context: {cluster: one, user: me, namespace: kube-system}}
- {name: b, context: {cluster: one, user: you}}
- {name: c, context: {cluster: two, user: me}}
- {name: d, context: {cluster: alias, user: me}}
- {name: nothing}
clusters:
- {name: one, cluster: {server: 'https://one'}}
- {name: two, cluster: {server: 'https://two'}}
- {name: alias, cluster: {server: 'https://one', extensions: [{name: written, extension: {at: noon}}]}}
users:
- {name: me, user: {username: me}}
- {name: you, user: {username: you}}
";
        assert_eq!(
            read(&[("a", text)]),
            expected(&[
                ("context a", "https://one", "me"),
                ("context b", "https://one", "you"),
                ("context c", "https://two", "me"),
            ])
        );
    }

    #[test]
    fn no_file_hides_what_another_calls_by_the_same_name() {
        let (one, two) = (of_k3s("https://one"), of_k3s("https://two"));
        let files = [("/k/one", &*one), ("/k/two", &*two), ("/k/copy-of-one", &*one)];
        assert_eq!(
            read(&files),
            expected(&[
                ("context default of /k/one", "https://one", "admin"),
                ("context default of /k/two", "https://two", "admin"),
            ])
        );
        assert_eq!(read(&[("/k/one", &one)]), expected(&[("context default", "https://one", "admin")]));
    }

    #[test]
    fn what_a_context_refers_to_may_be_in_another_file() {
        let contexts = "contexts:
- {name: apart, context: {cluster: one, user: me}}
- {name: half, context: {cluster: default, user: me}}
- {name: lost, context: {cluster: nowhere, user: nobody}}
- {name: lost-too, context: {cluster: nowhere-else, user: nobody}}
";
        let parts = "
clusters: [{name: one, cluster: {server: 'https://one'}}]
users: [{name: me, user: {username: me}}]
";
        let own = "clusters: [{name: default, cluster: {server: 'https://own'}}]";
        let contexts = format!("{contexts}{own}");
        assert_eq!(
            read(&[("/k/first", &of_k3s("https://first")), ("/k/contexts", &contexts), ("/k/parts", parts)]),
            expected(&[
                ("context default", "https://first", "admin"),
                ("context apart", "https://one", "me"),
                ("context half", "https://own", "me"),
                ("context lost", "", ""),
                ("context lost-too", "", ""),
            ])
        );
    }

    #[test]
    fn a_file_that_is_named_is_one_to_ask() {
        let os = |text: &str| Some(OsString::from(text));
        let home = std::env::temp_dir().join(format!("k3nest-home-{}", uuid::Uuid::new_v4()));
        let usual = home.join(".kube/config");
        let paths = |given: Option<&str>, listed: Option<&str>| {
            files(given.map(Path::new), listed.and_then(os), Some(home.clone().into()))
        };
        assert_eq!(paths(None, None), [""; 0].map(PathBuf::from), "the usual one is not there");
        std::fs::create_dir_all(home.join(".kube")).unwrap();
        std::fs::write(&usual, of_k3s("https://usual")).unwrap();
        assert_eq!(paths(None, None), vec![usual.clone()]);
        assert_eq!(paths(None, Some("/no/a::/no/b:/no/a")), ["/no/a", "/no/b"].map(PathBuf::from));
        assert_eq!(paths(Some("/no/c"), Some("/no/a")), [PathBuf::from("/no/c")]);

        let (asked, silent) = contexts(Some(&usual));
        assert_eq!((asked.len(), silent), (1, vec![]));
        let missing = home.join("missing");
        let (asked, silent) = contexts(Some(&missing));
        assert!(asked.is_empty(), "{asked:?}");
        let [ApiServer { name, answer: Err(why) }] = silent.as_slice() else { panic!("{silent:?}") };
        assert_eq!(*name, format!("kubeconfig {}", missing.display()));
        assert!(why.contains("No such file"), "{why}");
        std::fs::write(&usual, "contexts: 7").unwrap();
        assert_eq!(contexts(Some(&usual)).1.len(), 1, "it cannot be read");
        std::fs::remove_dir_all(home).unwrap();
    }
}
