//! Packs the operator's image from this program's own binary, without Docker and without a base.
//!
//! The binary is linked statically, so the image is the binary, an empty /tmp and an /etc/passwd.
//! The archive is a pure function of the binary: same bytes, same archive, same tag. So a cluster
//! that runs the tag runs this very build, and loading it twice changes nothing.

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Repository of the operator's image where it is loaded from this program instead of pulled.
pub const OPERATOR_REPOSITORY: &str = "k3nest.dev/operator";

/// Label of the operator's image.
pub const OPERATOR_IMAGE_LABEL: &str = "k3nest.dev/operator-image";

/// The operator's image, ready for `docker load` or `ctr image import`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorImage {
    /// k3nest.dev/operator:VERSION-DIGEST, the digest being the content's.
    pub reference: String,
    /// The image in the format of `docker save`.
    pub archive: Vec<u8>,
}

/// Packs `binary` as an image whose entrypoint it is.
pub fn operator_image(binary: &[u8]) -> OperatorImage {
    let layer = layer(binary);
    let layer_digest = hex(&layer);
    let version = env!("CARGO_PKG_VERSION");
    let config = json!({
        "architecture": architecture(binary),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/k3nest"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": {
                OPERATOR_IMAGE_LABEL: "true",
                "org.opencontainers.image.version": version,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "k3nest up" }],
    })
    .to_string();
    let config_digest = hex(config.as_bytes());
    // The configuration names the layer, so its digest stands for the whole content.
    let reference = format!("{OPERATOR_REPOSITORY}:{version}-{}", &config_digest[..12]);
    let (config_name, layer_name) = (format!("{config_digest}.json"), format!("{layer_digest}/layer.tar"));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [reference], "Layers": [layer_name] }]).to_string();
    let archive = archive(&[
        Entry::file(&config_name, 0o644, config.as_bytes()),
        Entry::directory(&format!("{layer_digest}/"), 0o755),
        Entry::file(&layer_name, 0o644, &layer),
        Entry::file("manifest.json", 0o644, manifest.as_bytes()),
    ]);
    OperatorImage { reference, archive }
}

/// Whether an ELF binary needs no loader, and so runs in an image that holds nothing else.
pub fn is_static(binary: &[u8]) -> bool {
    const INTERPRETER: u32 = 3; // PT_INTERP
    program_headers(binary).is_some_and(|mut types| types.all(|t| t != INTERPRETER))
}

/// Types of a 64-bit little-endian ELF file's program headers.
fn program_headers(binary: &[u8]) -> Option<impl Iterator<Item = u32>> {
    if !binary.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let offset = usize::try_from(u64::from_le_bytes(bytes(binary, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(bytes(binary, 54)?));
    let count = usize::from(u16::from_le_bytes(bytes(binary, 56)?));
    let types = (0..count).map(|i| {
        let at = offset.checked_add(i * size)?;
        Some(u32::from_le_bytes(bytes(binary, at)?))
    });
    Some(types.collect::<Option<Vec<_>>>()?.into_iter())
}

fn bytes<const N: usize>(binary: &[u8], at: usize) -> Option<[u8; N]> {
    binary.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The machine that an ELF binary is for, in the words of image configurations; this program's own
/// where the file does not say.
fn architecture(binary: &[u8]) -> &'static str {
    match (binary.starts_with(b"\x7fELF"), bytes(binary, 18).map(u16::from_le_bytes)) {
        (true, Some(62)) => "amd64",
        (true, Some(183)) => "arm64",
        _ if cfg!(target_arch = "aarch64") => "arm64",
        _ => "amd64",
    }
}

fn layer(binary: &[u8]) -> Vec<u8> {
    archive(&[
        Entry::directory("etc/", 0o755),
        Entry::file("etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n"),
        Entry::file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/k3nest\nnobody:x:65534:65534:nobody:/:/k3nest\n",
        ),
        Entry::file("k3nest", 0o755, binary),
        Entry::directory("tmp/", 0o1777),
    ])
}

/// A file or directory of an archive.
struct Entry<'a> {
    path: &'a str,
    mode: u32,
    content: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    fn file(path: &'a str, mode: u32, content: &'a [u8]) -> Self {
        Self { path, mode, content: Some(content) }
    }

    fn directory(path: &'a str, mode: u32) -> Self {
        Self { path, mode, content: None }
    }
}

/// A tar archive with nothing in it that differs from one run to the next: root owns all, at time 0.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let size: usize = entries.iter().map(|e| e.content.map_or(0, <[u8]>::len) + 1024).sum();
    let mut builder = Builder::new(Vec::with_capacity(size + 1024));
    for Entry { path, mode, content } in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(if content.is_some() { EntryType::Regular } else { EntryType::Directory });
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        // Fails only for paths over 100 bytes; the longest is 77.
        let _ = builder.append_data(&mut header, path, content);
    }
    // Writing to memory does not fail.
    builder.into_inner().unwrap_or_default()
}

fn hex(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    fn unpack(archive: &[u8]) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            (path, (entry.header().mode().unwrap(), entry.header().mtime().unwrap(), content))
        });
        entries.collect()
    }

    #[test]
    fn the_same_binary_gives_the_same_image_and_another_gives_another() {
        assert_eq!(operator_image(b"one"), operator_image(b"one"));
        assert_ne!(operator_image(b"one").reference, operator_image(b"two").reference);
    }

    #[test]
    fn digests_and_names_fit_together() {
        let image = operator_image(b"binary");
        let files = unpack(&image.archive);
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"].2).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], image.reference);
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config = &files[config_name].2;
        assert_eq!(config_name, format!("{}.json", hex(config)));
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()].2;
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(layer)));
        assert_eq!(config["config"]["Entrypoint"], json!(["/k3nest"]));
        assert_eq!(config["config"]["Labels"][OPERATOR_IMAGE_LABEL], "true");
    }

    #[test]
    fn the_layer_holds_the_binary_and_little_else() {
        let layer = layer(b"binary");
        let files = unpack(&layer);
        let modes: Vec<_> =
            files.iter().map(|(path, (mode, time, _))| (path.as_str(), *mode, *time)).collect();
        assert_eq!(
            modes,
            [
                ("etc/", 0o755, 0),
                ("etc/group", 0o644, 0),
                ("etc/passwd", 0o644, 0),
                ("k3nest", 0o755, 0),
                ("tmp/", 0o1777, 0)
            ]
        );
        assert_eq!(files["k3nest"].2, b"binary");
    }

    #[test]
    fn a_binary_with_a_loader_is_told_from_one_without() {
        let mut elf = vec![0; 64 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        elf[64] = 1;
        assert!(is_static(&elf));
        elf[64 + 56] = 3;
        assert!(!is_static(&elf));
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&elf[..100]));
    }
}
