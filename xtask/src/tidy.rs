//! Rules as a test with a ratchet: what the compiler cannot check.
//!
//! - the dependency table of ARCHITECTURE.md, against the manifests;
//! - `#![forbid(unsafe_code)]` everywhere but where unsafe code may live;
//! - files of at most [`FILE_LINES`] lines, functions of at most [`FUNCTION_LINES`], lines of at most [`LINE_CHARS`] characters;
//!   what is longer today stands in `xtask/ratchet.toml` with its length and may only shrink;
//! - every path named in ARCHITECTURE.md exists;
//! - nothing is left to do without an issue number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::command::root;

/// Longest file, lines. Test modules in files of their own may be twice as long.
const FILE_LINES: usize = 600;
/// Longest function, lines.
const FUNCTION_LINES: usize = 70;
/// Longest line, characters
/// (texts for people, which rustfmt leaves alone, may be longer than its 120).
const LINE_CHARS: usize = 200;

/// Crate → workspace crates it may depend on. Dependencies of tests count too.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("ubique-model", &[]),
    ("ubique-proto", &["ubique-model"]),
    ("ubique-sys", &["ubique-model"]),
    ("ubique-edge", &["ubique-proto", "ubique-sys"]),
    ("ubique-lab", &["ubique-model", "ubique-proto", "ubique-sys"]),
    ("ubique-node", &["ubique-model", "ubique-proto", "ubique-sys", "ubique-edge"]),
    ("ubique-fuzz", &["ubique-model", "ubique-proto", "ubique-sys", "ubique-node"]),
    ("ubique-quic", &["ubique-proto"]),
    ("ubique-traffic", &["ubique-model", "ubique-sys", "ubique-quic"]),
    ("ubique", &["ubique-model", "ubique-proto", "ubique-sys", "ubique-lab", "ubique-node", "ubique-traffic"]),
    ("xtask", &["ubique-model", "ubique-lab"]),
];
/// Crates that must stay free of async and HTTP stacks.
const PURE: &[&str] = &["ubique-model", "ubique-proto", "ubique-sys", "ubique-edge", "ubique-lab"];
/// What those stacks are called.
const HEAVY: &[&str] = &["tokio", "hyper", "hyper-util", "axum", "reqwest", "async-std", "smol"];
/// Crates that may contain unsafe code.
const UNSAFE: &[&str] = &["ubique-sys", "ubique-edge"];

/// Checks everything and reports every finding.
pub fn run() -> Result<(), String> {
    let mut findings = Vec::new();
    manifests(&mut findings);
    let mut lengths = BTreeMap::new();
    for file in sources() {
        source(&file, &mut findings, &mut lengths);
    }
    ratchet(&lengths, &mut findings);
    architecture(&mut findings);
    if findings.is_empty() {
        eprintln!("tidy: fine");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    Err(format!("{} findings", findings.len()))
}

fn manifests(findings: &mut Vec<String>) {
    for (name, allowed) in DEPENDENCIES {
        let directory = if *name == "xtask" { root().join(name) } else { root().join("crates").join(name) };
        let manifest = directory.join("Cargo.toml");
        let table: toml::Table = match fs::read_to_string(&manifest)
            .map_err(|e| e.to_string())
            .and_then(|text| text.parse().map_err(|e: toml::de::Error| e.to_string()))
        {
            Ok(table) => table,
            Err(error) => {
                findings.push(format!("{}: {error}", manifest.display()));
                continue;
            }
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(|t| t.as_table()) else {
                continue;
            };
            for dependency in dependencies.keys() {
                if (dependency.starts_with("ubique") || dependency == "xtask")
                    && !allowed.contains(&dependency.as_str())
                {
                    findings.push(format!("{name} may not depend on {dependency} ({section}): ARCHITECTURE.md"));
                }
                if section == "dependencies" && PURE.contains(name) && HEAVY.contains(&dependency.as_str()) {
                    findings.push(format!("{name} must stay free of {dependency}: ARCHITECTURE.md"));
                }
            }
        }
        let roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"].iter().map(|f| directory.join(f)).collect();
        for file in roots.iter().filter(|f| f.exists()) {
            let forbids = fs::read_to_string(file).unwrap_or_default().contains("#![forbid(unsafe_code)]");
            if forbids == UNSAFE.contains(name) {
                findings
                    .push(format!("{}: #![forbid(unsafe_code)] belongs in every crate but {UNSAFE:?}", shown(file)));
            }
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join("crates"), root().join("xtask"), root().join("fuzz/fuzz_targets")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn source(file: &Path, findings: &mut Vec<String>, lengths: &mut BTreeMap<String, usize>) {
    let Ok(text) = fs::read_to_string(file) else {
        findings.push(format!("{}: not readable as UTF-8", shown(file)));
        return;
    };
    let name = shown(file);
    let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
    let lines = text.lines().count();
    if lines > if is_test { 2 * FILE_LINES } else { FILE_LINES } {
        lengths.insert(name.clone(), lines);
    }
    for (index, line) in text.lines().enumerate() {
        if line.chars().count() > LINE_CHARS {
            findings.push(format!("{name}:{}: line of more than {LINE_CHARS} characters", index + 1));
        }
        let marker = ["TO", "DO"].concat();
        if line.contains(&marker) && !line.contains(&format!("{marker}(#")) {
            findings.push(format!("{name}:{}: {marker} without an issue number", index + 1));
        }
    }
    match syn::parse_file(&text) {
        Ok(tree) => {
            let mut functions = Functions { name: &name, is_test, lengths };
            functions.visit_file(&tree);
        }
        Err(error) => findings.push(format!("{name}: {error}")),
    }
}

struct Functions<'a> {
    name: &'a str,
    is_test: bool,
    lengths: &'a mut BTreeMap<String, usize>,
}

impl Functions<'_> {
    fn check(&mut self, identifier: &syn::Ident, span: proc_macro2::Span) {
        let lines = span.end().line + 1 - span.start().line;
        if lines > if self.is_test { 2 * FUNCTION_LINES } else { FUNCTION_LINES } {
            self.lengths.insert(format!("{}::{identifier}", self.name), lines);
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check(&item.sig.ident, item.block.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(&item.sig.ident, item.block.span());
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// What is too long must stand in the ratchet with at least that length; entries that shrank must be tightened.
fn ratchet(lengths: &BTreeMap<String, usize>, findings: &mut Vec<String>) {
    let file = root().join("xtask/ratchet.toml");
    let known: BTreeMap<String, usize> =
        fs::read_to_string(&file).ok().and_then(|text| toml::from_str(&text).ok()).unwrap_or_default();
    let names: BTreeSet<&String> = lengths.keys().chain(known.keys()).collect();
    for name in names {
        match (lengths.get(name), known.get(name)) {
            (Some(now), None) => findings.push(format!("{name}: {now} lines; split it")),
            (Some(now), Some(limit)) if now > limit => {
                findings.push(format!("{name}: {now} lines, the ratchet allows {limit}"));
            }
            (Some(now), Some(limit)) if now < limit => {
                findings.push(format!("{name}: {now} lines now; tighten the ratchet from {limit}"));
            }
            (None, Some(_)) => findings.push(format!("{name}: short enough now; remove it from the ratchet")),
            _ => {}
        }
    }
}

/// Paths in ARCHITECTURE.md, written in backticks with a slash and no placeholder, exist.
fn architecture(findings: &mut Vec<String>) {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    for quoted in text.split('`').skip(1).step_by(2) {
        let is_path =
            ["crates/", "docs/", "examples/", "tests/", "xtask/", "pkg/"].iter().any(|p| quoted.starts_with(p));
        if is_path && !quoted.contains(['<', '{', '*', ' ']) && !root().join(quoted).exists() {
            findings.push(format!("ARCHITECTURE.md names `{quoted}`, which does not exist"));
        }
    }
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}
