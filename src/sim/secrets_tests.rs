//! Secrets: in files, and where the user put one there, in the environment of a node. Nowhere else.

use proptest::prelude::*;

use super::{
    docker::Docker,
    k3s::CLIENT_KEY,
    lab::{Lab, cases, host},
    specs::{Draft, SECRETS, dev, draft},
};
use crate::{
    engine::{Engine, Scope, observe},
    plan::{ContainerState, Images, desired, diff},
};

/// Every token and password that is about.
fn secrets(docker: &Docker) -> Vec<String> {
    let tokens = docker.volumes.values().filter_map(|v| v.etcd.as_ref());
    let tokens = tokens.map(|e| String::from_utf8(e.token.clone()).unwrap());
    tokens.chain(SECRETS.map(str::to_owned)).chain([CLIENT_KEY.to_owned()]).collect()
}

fn reveals(text: &str, docker: &Docker) -> Option<String> {
    secrets(docker).into_iter().find(|secret| text.contains(secret.as_str()))
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn secrets_are_in_files_only(draft in draft(), crashing in any::<bool>()) {
        // Given a cluster with secrets, which may have come to crash and to tell all it knows,
        let draft = Draft { secret_env: true, secret_file: true, ..draft };
        let mut lab = Lab::new(host());
        lab.settle(&draft, &dev());
        if crashing {
            let mut docker = lab.engine.docker();
            let server = docker.containers.get_mut(&dev().object_name("dev-server-0")).unwrap();
            server.state = ContainerState::Restarting;
        }

        // when it is looked at and planned for,
        let outcome = lab.step(&draft, &dev()).unwrap();
        let request = lab.request(&draft, &dev());
        let input = crate::plan::Input {
            identity: dev(),
            spec: request.spec.clone(),
            values: request.values.clone().unwrap(),
            settings: request.settings.clone(),
            internal: request.internal.clone(),
        };
        let record = super::projection::record(&lab.engine.docker(), &dev()).unwrap();
        let engine = lab.run(lab.engine.info()).unwrap().unwrap();
        let observed = lab.run(observe(&lab.engine, &dev())).unwrap().unwrap();
        let images: Images = lab.engine.docker().images.keys().map(|i| (i.clone(), Vec::new())).collect();
        let nothing = Default::default();
        let wanted = desired(&input, &engine, &record, &nothing, &images, &Default::default());
        let all = Scope::Everything;
        let listed = (
            lab.run(lab.engine.list_containers(&all)).unwrap(),
            lab.run(lab.engine.list_volumes(&all)).unwrap(),
            lab.run(lab.engine.list_networks(&all)).unwrap(),
        );

        // then none of it shows.
        let docker = lab.engine.docker();
        if crashing {
            prop_assert_eq!(super::lab::reason(&outcome), "NodeCrashLooping");
        }
        if let Ok(wanted) = wanted {
            let plan = diff(&dev(), &wanted, &observed, &images, docker.now);
            prop_assert_eq!(reveals(&format!("{wanted:?} {plan:?}"), &docker), None);
        }
        prop_assert_eq!(reveals(&format!("{listed:?}"), &docker), None);
        prop_assert_eq!(reveals(&format!("{outcome:?} {request:?} {input:?}"), &docker), None);
        prop_assert_eq!(reveals(&serde_json::to_string(&outcome.status).unwrap(), &docker), None);
        for container in docker.containers.values() {
            let env = container.want.env.iter().filter(|(name, _)| name != "PASSWORD");
            let env: Vec<String> = env.map(|(k, v)| format!("{k}={}", v.expose())).collect();
            prop_assert_eq!(reveals(&env.join(" "), &docker), None);
        }
    }
}
