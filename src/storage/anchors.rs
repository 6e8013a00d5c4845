//! What is kept outside the database: checkpoint notes and public keys, as files that are created once.
//!
//! Owns the folder `<data>/anchors`. Never replaces a note that exists (an anchor that could be overwritten would anchor
//! nothing). A failed write is an error that the caller retries; nothing is half-written, since a note appears by rename.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::domain::ids::OrgId;

/// The folder of anchors.
#[derive(Clone, Debug)]
pub struct Anchors {
    dir: PathBuf,
}

impl Anchors {
    /// Anchors below a data folder.
    pub fn below(data: &Path) -> Self {
        Self { dir: data.join("anchors") }
    }

    /// Keeps a checkpoint note; the same note again is fine.
    pub fn put_note(&self, org: &OrgId, size: u64, note: &str) -> std::io::Result<()> {
        let dir = self.dir.join(org.as_str());
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{size:012}.note"));
        if path.exists() { Ok(()) } else { write_once(&path, note.as_bytes()) }
    }

    /// All notes of an organization, smallest checkpoint first.
    pub fn notes(&self, org: &OrgId) -> std::io::Result<Vec<String>> {
        let mut paths = match std::fs::read_dir(self.dir.join(org.as_str())) {
            Ok(found) => found.map(|f| f.map(|f| f.path())).collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "note"));
        paths.sort();
        paths.iter().map(std::fs::read_to_string).collect()
    }

    /// The size of an organization's largest checkpoint, if it has one here.
    pub fn largest(&self, org: &OrgId) -> std::io::Result<Option<u64>> {
        let found = match std::fs::read_dir(self.dir.join(org.as_str())) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".note")?.parse::<u64>().ok();
        Ok(found.filter_map(|f| size(f.ok()?.file_name())).max())
    }

    /// Organizations that have notes.
    pub fn organizations(&self) -> std::io::Result<Vec<OrgId>> {
        let found = match std::fs::read_dir(&self.dir) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = found.filter_map(|f| f.ok()?.file_name().into_string().ok());
        Ok(names.filter(|n| !n.contains('.')).filter_map(|n| OrgId::parse(&n).ok()).collect())
    }

    /// Keeps the public keys outside the database.
    pub fn put_jwks(&self, jwks: &str) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        write_once(&self.dir.join("jwks.json"), jwks.as_bytes())
    }

    /// The public keys that were kept, if any.
    pub fn jwks(&self) -> std::io::Result<Option<String>> {
        match std::fs::read_to_string(self.dir.join("jwks.json")) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Writes beside the target, syncs, renames.
fn write_once(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("part");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    // The name is part of the anchor too.
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}
