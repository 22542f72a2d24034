//! Files into and out of containers, as tar archives; works on containers that never ran.
//!
//! A path below a tmpfs of the container cannot be reached this way: the tmpfs exists only inside
//! the running container.

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::StreamExt;
use std::{
    io::Read,
    path::{Component, Path, PathBuf},
};

use super::{Docker, failure::Call, limits};
use crate::{
    engine::{EngineError, Result},
    plan::FileWant,
};

/// Links followed until it is called a loop.
const LINKS: usize = 4;

/// A tar header, the padding and the end of the archive.
const ARCHIVE_MARGIN: usize = 16 * 1024;

/// Writes files, all in one upload.
///
/// The archive names no directories: Docker makes those that are missing, root's and 0755, while a
/// directory in the archive would take its mode and owner from there also if it exists. A file
/// never takes the place of a directory.
pub(super) async fn write(docker: &Docker, id: &str, files: &[FileWant]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let call = Call::new("write files into", "container", id);
    let archive = Bytes::from(pack(files).map_err(|message| call.refused(message))?);
    let options = UploadToContainerOptionsBuilder::new().path("/").no_overwrite_dir_non_dir("true").build();
    // As a stream, since a body in one piece is written to the trace log.
    let body = bollard::body_stream(futures::stream::iter([archive]));
    docker
        .call(&call, limits::CHANGE, |client| async move {
            client.upload_to_container(id, Some(options), body).await
        })
        .await
}

fn pack(files: &[FileWant]) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    for FileWant { path, mode, content } in files {
        let broken = |cause: &dyn std::fmt::Display| format!("{path} cannot be written: {cause}");
        let relative = relative(path).ok_or_else(|| broken(&"the path must be absolute and without .."))?;
        let content = content.expose();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
        archive.append_data(&mut header, relative, content.as_slice()).map_err(|error| broken(&error))?;
    }
    archive.into_inner().map_err(|error| error.to_string())
}

/// The path in an archive that is unpacked at /.
fn relative(path: &str) -> Option<PathBuf> {
    let relative: PathBuf = Path::new(path)
        .strip_prefix("/")
        .ok()?
        .components()
        .map(|part| matches!(part, Component::Normal(_)).then_some(part))
        .collect::<Option<_>>()?;
    (!relative.as_os_str().is_empty() && !path.ends_with('/')).then_some(relative)
}

/// Reads a file, following links; None if file or container is not there.
pub(super) async fn read(docker: &Docker, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
    let name = format!("{path} of container {id}");
    let call = Call::new("read", "", &name);
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS {
        let Some(archive) = download(docker, id, &call, &path).await? else { return Ok(None) };
        match unpack(&archive).map_err(|message| call.refused(message))? {
            Entry::File(content) => return Ok(Some(content)),
            Entry::Link(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
        }
    }
    Err(call.refused("too many symbolic links"))
}

/// Whether there is something at `path`; false if path or container is not there.
pub(super) async fn is_there(docker: &Docker, id: &str, path: &str) -> Result<bool> {
    let name = format!("{path} of container {id}");
    let call = Call::new("look for", "", &name);
    let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
    let found = docker
        .call(&call, limits::QUESTION, |client| async move {
            client.get_container_archive_info(id, Some(options)).await
        })
        .await;
    match found {
        Ok(_) => Ok(true),
        Err(EngineError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn download(docker: &Docker, id: &str, call: &Call<'_>, path: &Path) -> Result<Option<Vec<u8>>> {
    let options = DownloadFromContainerOptionsBuilder::new().path(&path.to_string_lossy()).build();
    let archive = docker
        .call(call, limits::QUESTION, |client| async move {
            let mut chunks = client.download_from_container(id, Some(options));
            let mut archive = Vec::new();
            while let Some(chunk) = chunks.next().await {
                archive.extend_from_slice(&chunk?);
                if archive.len() > limits::FILE + ARCHIVE_MARGIN {
                    return Ok(None);
                }
            }
            Ok(Some(archive))
        })
        .await;
    match archive {
        Ok(Some(archive)) => Ok(Some(archive)),
        Ok(None) => Err(call.refused(format!("it is larger than {} bytes", limits::FILE))),
        Err(EngineError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
}

/// The first entry of an archive.
fn unpack(archive: &[u8]) -> Result<Entry, String> {
    let broken = |error: std::io::Error| format!("Docker's archive cannot be read: {error}");
    let mut archive = tar::Archive::new(archive);
    let Some(entry) = archive.entries().map_err(broken)?.next() else {
        return Err("Docker's archive is empty".into());
    };
    let mut entry = entry.map_err(broken)?;
    match entry.header().entry_type() {
        tar::EntryType::Regular => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(broken)?;
            Ok(Entry::File(content))
        }
        tar::EntryType::Symlink => match entry.link_name().map_err(broken)? {
            Some(target) => Ok(Entry::Link(target.into_owned())),
            None => Err("it is a symbolic link to nowhere".into()),
        },
        _ => Err("it is not a regular file".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_files_only_and_keeps_long_names() {
        let long = format!("/etc/{}/config.yaml", "d".repeat(150));
        let archive =
            pack(&[FileWant::new(&long, 0o600, "a: b"), FileWant::new("/tmp/x", 0o755, "")]).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
                (format!("/{}", entry.path().unwrap().display()), entry.header().mode().unwrap())
            })
            .collect();
        assert_eq!(entries, [(long, 0o600), ("/tmp/x".to_owned(), 0o755)]);
    }

    #[test]
    fn paths_outside_or_of_directories_are_refused() {
        for path in ["etc/x", "/", "/etc/", "/etc/../root/x", ""] {
            assert!(pack(&[FileWant::new(path, 0o600, "")]).is_err(), "{path}");
        }
    }

    #[test]
    fn errors_name_the_path_and_never_the_content() {
        let error = pack(&[FileWant::new("x", 0o600, "secret")]).unwrap_err();
        assert!(error.contains('x') && !error.contains("secret"), "{error}");
    }
}
