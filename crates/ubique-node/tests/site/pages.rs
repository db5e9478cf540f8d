//! What is written in `docs` and `pkg`, read by tests which do what it says.

use std::fs;
use std::path::{Path, PathBuf};

use ubique_model::service::Service;

/// Where files of a page lie in a test: below the sandbox's own `/run`.
const HERE: &str = "/run/etc/";

/// A file of this repository.
pub fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The service a text describes, with its state where the sandbox may write.
pub fn service(name: &str, text: &str) -> Service {
    let parsed = Service::parse(name, text.as_bytes());
    let mut service = parsed.value.unwrap_or_else(|| panic!("{name}: {:#?}", parsed.diagnostics));
    service.agent.state = crate::lab::STATE.into();
    service
}

/// A page with its blocks of code.
pub struct Page {
    name: String,
    /// What stands behind the language (`service`, or the path of a file), and the text.
    blocks: Vec<(String, String)>,
}

impl Page {
    pub fn read(name: &str) -> Page {
        let text = read(name);
        let mut blocks = Vec::new();
        // Every second piece is a block.
        for block in text.split("\n```").skip(1).step_by(2) {
            let (kind, body) = block.split_once('\n').unwrap();
            if let Some((_, what)) = kind.split_once(' ') {
                blocks.push((what.to_owned(), format!("{body}\n")));
            }
        }
        Page { name: name.to_owned(), blocks }
    }

    /// The block with this path or word.
    pub fn block(&self, what: &str) -> &str {
        let found = self.blocks.iter().find(|(name, _)| name == what);
        &found.unwrap_or_else(|| panic!("{} has no block {what}", self.name)).1
    }

    /// Our side.
    pub fn service(&self) -> Service {
        service(&self.name, self.block("service"))
    }

    /// Writes their files to where the sandbox may write, and has them name each other there. Returns the path of one.
    pub fn write(&self, wanted: &str) -> PathBuf {
        let here = |text: &str| text.replace("/etc/", HERE);
        for (path, text) in self.blocks.iter().filter(|(what, _)| what.starts_with('/')) {
            let path = PathBuf::from(here(path));
            // Elsewhere is not ours to write to.
            let path = if path.starts_with("/run") { path } else { Path::new("/run").join(path.file_name().unwrap()) };
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, here(text)).unwrap();
        }
        self.block(wanted);
        PathBuf::from(here(wanted))
    }
}
