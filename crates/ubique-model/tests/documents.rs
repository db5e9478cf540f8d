//! The documents are true where a test can tell: files in them are accepted, and tests they name exist.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

use std::collections::{BTreeMap, HashSet};
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

/// What a source file has that a document may name.
struct Source {
    /// Its path without `.rs`, in pieces.
    path: Vec<String>,
    functions: HashSet<String>,
    modules: HashSet<String>,
    /// Texts in quotes: names of tests in harnesses of our own, and rows of the interop matrix.
    quoted: HashSet<String>,
}

/// The identifiers right behind a word.
fn behind(text: &str, word: &str) -> HashSet<String> {
    let name =
        |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    text.split(word).skip(1).map(name).collect()
}

impl Source {
    fn read(file: &Path) -> Source {
        let text = fs::read_to_string(file).unwrap();
        let path: Vec<String> =
            file.with_extension("").iter().map(|piece| piece.to_string_lossy().into_owned()).collect();
        let own_harness = path.iter().any(|piece| piece == "site" || piece == "interop");
        let quoted = text.split('"').filter(|_| own_harness).map(str::to_owned).collect();
        Source { path, functions: behind(&text, "fn "), modules: behind(&text, "mod "), quoted }
    }

    fn is_of(&self, module: &str) -> bool {
        self.path.iter().any(|piece| piece == module) || self.modules.contains(module)
    }

    /// Whether it has this name in these modules.
    fn has(&self, modules: &[&str], name: &str, page: Page) -> bool {
        let whole = page.names_modules && (name == "*" || self.is_of(name));
        (self.functions.contains(name) || self.quoted.contains(name) || whole) && modules.iter().all(|m| self.is_of(m))
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("crates"), root().join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push(Source::read(&path));
            }
        }
    }
    sources
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
    let sources = sources();
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
            if !is_file && !sources.iter().any(|source| source.has(modules, last, page)) {
                missing.insert(format!("{}:{line}", page.file), name);
            }
        }
    }
    assert!(missing.is_empty(), "named, but not there: {missing:#?}");
}
