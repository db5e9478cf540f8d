//! The documents are true where a test can tell: files in them are accepted, and tests they name exist.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ubique_model::service::Service;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Each guide has a whole file of ours, which has no mistakes, and reads back as it is printed.
#[test]
fn service_files_of_the_migration_guides_are_right() {
    let mut guides = 0;
    for entry in fs::read_dir(root().join("docs/migration")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let blocks: Vec<&str> = text.split("```toml service\n").skip(1).filter_map(|b| b.split("```").next()).collect();
        assert_eq!(blocks.len(), 1, "{}", path.display());
        let parsed = Service::parse("service.toml", blocks[0].as_bytes());
        let service = parsed.value.unwrap_or_else(|| panic!("{}: {:#?}", path.display(), parsed.diagnostics));
        assert_eq!(Service::parse("printed", service.to_toml().as_bytes()).value, Some(service), "{}", path.display());
        guides += 1;
    }
    assert!(guides >= 5, "a guide is gone");
}

/// Sources by path, without `.rs`, in pieces.
struct Sources(Vec<(Vec<String>, String)>);

impl Sources {
    fn read() -> Sources {
        let mut sources = Vec::new();
        let mut folders = vec![root().join("crates"), root().join("xtask")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let pieces = path.with_extension("");
                    let pieces = pieces.iter().map(|piece| piece.to_string_lossy().into_owned()).collect();
                    sources.push((pieces, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Sources(sources)
    }

    /// Whether there is a function of this name, a test of the harnesses of our own, or a row of the interop matrix,
    /// in these modules.
    fn has(&self, modules: &[&str], name: &str, page: Page) -> bool {
        let declares =
            |text: &str, name: &str| text.contains(&format!("mod {name} {{")) || text.contains(&format!("mod {name};"));
        self.0.iter().any(|(path, text)| {
            let here = |module: &str| path.iter().any(|piece| piece == module);
            let own_harness =
                here("tests") && (here("site") || here("interop")) && text.contains(&format!("\"{name}\""));
            let module = page.names_modules && (name == "*" || here(name) || declares(text, name));
            modules.iter().all(|module| here(module) || declares(text, module))
                && (text.contains(&format!("fn {name}(")) || own_harness || module)
        })
    }
}

/// A page with a column of tests.
#[derive(Clone, Copy)]
struct Page {
    file: &'static str,
    column: &'static str,
    /// Whole modules are named, too.
    names_modules: bool,
    /// Fewest names: a table that was cut off must not pass.
    least: usize,
}

const PAGES: [Page; 3] = [
    Page { file: "docs/anycast-rfcs.md", column: "shown by", names_modules: false, least: 30 },
    Page { file: "docs/complaints.md", column: "shown by", names_modules: false, least: 40 },
    Page { file: "docs/rfc-coverage.md", column: "Test", names_modules: true, least: 150 },
];

/// `module::{a, b}` → both.
fn spread(name: &str) -> Vec<String> {
    match name.split_once('{') {
        Some((front, list)) => list.trim_end_matches('}').split(", ").map(|one| format!("{front}{one}")).collect(),
        None => vec![name.to_owned()],
    }
}

/// Names between backticks in a column, by line number.
fn named(text: &str, column: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut index = None;
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            inside = false;
        } else if !inside {
            inside = true;
            index = cells.iter().position(|cell| cell.eq_ignore_ascii_case(column));
        } else if let Some(cell) = index.and_then(|index| cells.get(index)) {
            let quoted = cell.split('`').skip(1).step_by(2);
            names.extend(quoted.flat_map(spread).map(|name| (number + 1, name)));
        }
    }
    names
}

#[test]
fn tests_that_documents_name_exist() {
    let sources = Sources::read();
    let mut missing = BTreeMap::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page.file)).unwrap();
        let names = named(&text, page.column);
        assert!(names.len() >= page.least, "{} names {} tests in its column {:?}", page.file, names.len(), page.column);
        for (line, name) in names {
            // A file with cases or a scenario stands for the test that reads it.
            let is_file = name.contains('/')
                && ["", "crates/ubique-proto/src/bgp"].iter().any(|d| root().join(d).join(&name).exists());
            let pieces: Vec<&str> = name.split("::").collect();
            let (last, modules) = pieces.split_last().unwrap();
            if !is_file && !sources.has(modules, last, page) {
                missing.insert(format!("{}:{line}", page.file), name);
            }
        }
    }
    assert!(missing.is_empty(), "named, but not there: {missing:#?}");
}
