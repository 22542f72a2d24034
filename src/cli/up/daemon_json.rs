//! dockerd's configuration file: what is added to it, with everything else kept.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

/// `content` with the OCI runtime `name` at `path` in it, or None if it has that already. Empty
/// content is that of a file that is not there. The error is what is wrong with the content, which
/// is then not ours to mend.
pub fn with_runtime(content: &str, name: &str, path: &str) -> Result<Option<String>, String> {
    let mut document: Value = match content.trim() {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?,
    };
    let root = document.as_object_mut().ok_or("its top level is not an object")?;
    let runtimes = root.entry("runtimes").or_insert_with(|| Value::Object(Map::new()));
    let runtimes = runtimes.as_object_mut().ok_or("its \"runtimes\" is not an object")?;
    let wanted = serde_json::json!({ "path": path });
    if runtimes.get(name) == Some(&wanted) {
        return Ok(None);
    }
    runtimes.insert(name.into(), wanted);
    let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
    Ok(Some(format!("{text}\n")))
}

/// Writes a file so that a reader sees the old or the new one, and a crash leaves one of them.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};

    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNC: &str = "/usr/local/lib/k3nest/runc";

    fn merged(content: &str) -> Value {
        let text = with_runtime(content, "k3nest", RUNC).unwrap().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_missing_file_is_created() {
        assert_eq!(merged(""), serde_json::json!({"runtimes": {"k3nest": {"path": RUNC}}}));
    }

    #[test]
    fn everything_else_is_kept() {
        let before =
            r#"{"log-driver": "journald", "runtimes": {"nvidia": {"path": "n", "runtimeArgs": []}}}"#;
        assert_eq!(
            merged(before),
            serde_json::json!({
                "log-driver": "journald",
                "runtimes": {"nvidia": {"path": "n", "runtimeArgs": []}, "k3nest": {"path": RUNC}},
            })
        );
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let text = with_runtime("{}", "k3nest", RUNC).unwrap().unwrap();
        assert_eq!(with_runtime(&text, "k3nest", RUNC), Ok(None));
    }

    #[test]
    fn a_runtime_of_our_name_elsewhere_is_set_right() {
        assert_eq!(
            merged(r#"{"runtimes": {"k3nest": {"path": "/old"}}}"#)["runtimes"]["k3nest"]["path"],
            RUNC
        );
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        for broken in ["{", "[]", r#"{"runtimes": 1}"#] {
            assert!(with_runtime(broken, "k3nest", RUNC).is_err(), "{broken}");
        }
    }

    #[test]
    fn files_are_replaced_whole() {
        let directory = std::env::temp_dir().join(format!("k3nest-atomic-{}", uuid::Uuid::new_v4()));
        let path = directory.join("daemon.json");
        write_atomically(&path, b"one", 0o644).unwrap();
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
