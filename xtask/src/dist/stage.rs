//! A directory that becomes an archive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{failed, output_of};
use crate::command;

/// The directory; modes are those of an archive, whatever the umask is.
pub(super) struct Stage(pub(super) PathBuf);

impl Stage {
    /// An empty one.
    pub(super) fn empty(directory: PathBuf) -> Result<Stage, String> {
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(failed(&directory))?;
        }
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let stage = Stage(directory);
        stage.mode(&stage.0, 0o755)?;
        Ok(stage)
    }

    fn mode(&self, path: &Path, mode: u32) -> Result<(), String> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(path))
    }

    /// A directory with those above it.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, String> {
        let mut path = self.0.clone();
        for part in Path::new(name).components() {
            path.push(part);
            if !path.is_dir() {
                fs::create_dir(&path).map_err(failed(&path))?;
                self.mode(&path, 0o755)?;
            }
        }
        Ok(path)
    }

    fn place(&self, name: &str) -> Result<PathBuf, String> {
        if let Some((directory, _)) = name.rsplit_once('/') {
            self.directory(directory)?;
        }
        Ok(self.0.join(name))
    }

    pub(super) fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), String> {
        let path = self.place(name)?;
        fs::write(&path, text).map_err(failed(&path))?;
        self.mode(&path, mode)
    }

    pub(super) fn copy(&self, from: &Path, name: &str, mode: u32) -> Result<(), String> {
        let path = self.place(name)?;
        fs::copy(from, &path).map_err(failed(from))?;
        self.mode(&path, mode)
    }

    /// The files below a directory; programs stay programs.
    pub(super) fn tree(&self, from: &Path, name: &str) -> Result<(), String> {
        for entry in fs::read_dir(from).map_err(failed(from))? {
            let entry = entry.map_err(|e| e.to_string())?;
            let (path, to) = (entry.path(), format!("{name}/{}", entry.file_name().to_string_lossy()));
            if path.is_dir() {
                self.tree(&path, &to)?;
            } else {
                let executable = fs::metadata(&path).map_err(failed(&path))?.permissions().mode() & 0o111 != 0;
                self.copy(&path, &to, if executable { 0o755 } else { 0o644 })?;
            }
        }
        Ok(())
    }

    /// Gives the files of a directory, and it, the modes of data: another program has written them.
    pub(super) fn plain(&self, name: &str) -> Result<(), String> {
        let directory = self.directory(name)?;
        self.mode(&directory, 0o755)?;
        for entry in fs::read_dir(&directory).map_err(failed(&directory))? {
            self.mode(&entry.map_err(|e| e.to_string())?.path(), 0o644)?;
        }
        Ok(())
    }

    /// Compresses a file, or those of a directory, without names and times in it.
    pub(super) fn compress(&self, name: &str) -> Result<(), String> {
        let path = self.0.join(name);
        command::run("gzip", &["-9nr", &path.to_string_lossy()])
    }

    /// All files, sorted.
    fn files(&self) -> Result<Vec<PathBuf>, String> {
        let mut found = Vec::new();
        let mut directories = vec![self.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(failed(&directory))? {
                let path = entry.map_err(|e| e.to_string())?.path();
                if path.is_dir() { directories.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn octets(&self) -> Result<u64, String> {
        self.files()?.iter().map(|file| Ok(fs::metadata(file).map_err(failed(file))?.len())).sum()
    }

    /// `DEBIAN/md5sums`, which tools look for.
    pub(super) fn sums(&self) -> Result<(), String> {
        let mut text = String::new();
        for file in self.files()?.iter().filter(|file| !file.starts_with(self.0.join("DEBIAN"))) {
            let name = file.strip_prefix(&self.0).map_err(|e| e.to_string())?;
            let line = output_of("md5sum", &[&file.to_string_lossy()])?;
            let sum = line.split_whitespace().next().unwrap_or_default();
            text.push_str(&format!("{sum}  {}\n", name.display()));
        }
        self.write("DEBIAN/md5sums", &text, 0o644)
    }

    pub(super) fn remove(&self) -> Result<(), String> {
        fs::remove_dir_all(&self.0).map_err(failed(&self.0))
    }
}
