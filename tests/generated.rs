//! Generated files are what the code generates.

#[test]
fn the_crd_in_the_repository_is_current() {
    let generated = k3nest::cli::crds().unwrap();
    let committed = include_str!("../crds/k3sclusters.yaml");
    assert!(generated == committed, "crds/k3sclusters.yaml is not current; run `make generate`");
}
