//! `THIRD-PARTY`: whose work is in the binary, and under which licence, with its text.
//!
//! What is linked is asked of cargo (`cargo metadata`, the target of this machine, without what only builds and tests need).
//! A crate under another licence than those here, or without the text of its licence, fails the build: somebody must look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{failed, output_of};
use crate::setup;

/// Licences whose conditions are met by passing their text on, as SPDX names them.
const ACCEPTED: &[&str] =
    &["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "Unlicense", "BSL-1.0"];

/// File names that hold licences and what they ask to be passed on.
const TEXTS: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What is linked besides crates.
const SYSTEM: &str = "\
Besides, the static binary holds parts of

- the Rust standard library (https://www.rust-lang.org): MIT OR Apache-2.0;
- the GNU C Library (https://www.gnu.org/software/libc): LGPL-2.1-or-later. Its source is that of the distribution the binary was built
  on; with the source of ubique, which is free, anyone can link it with another version of that library.

";

/// The same for the data plane.
const DATA_PLANE: &str = "\
- libbpf (https://github.com/libbpf/libbpf, in the crate libbpf-sys): LGPL-2.1-only OR BSD-2-Clause, taken under the latter;
- libelf of elfutils (https://sourceware.org/elfutils): GPL-2.0-or-later OR LGPL-3.0-or-later, taken under the latter; its source is that of the
  distribution, and it can be replaced as the C library can;
- zlib (https://zlib.net): Zlib.

";

/// A crate that is linked.
struct Linked {
    name: String,
    version: String,
    licence: String,
    texts: Vec<String>,
}

/// The whole file.
///
/// # Errors
/// cargo fails, or a crate needs a look: with its name.
pub(super) fn third_party(target: &str) -> Result<String, String> {
    let mut arguments = vec!["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
    let data_plane = !setup::data_plane().is_empty();
    if data_plane {
        arguments.extend(["--features", "ubique/sessions"]);
    }
    let metadata = serde_json::from_str(&output_of("cargo", &arguments)?).map_err(|e| e.to_string())?;
    let linked = linked(&metadata)?;
    let mut out = format!(
        "ubique is linked with {} crates of others. Each is named with its licence; the texts follow.\n\n",
        linked.len()
    );
    let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Linked { name, version, licence, texts: own } in &linked {
        out.push_str(&format!("{name} {version}: {licence}\n"));
        for text in own {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    out.push('\n');
    out.push_str(SYSTEM);
    if data_plane {
        out.push_str(DATA_PLANE);
    }
    let mut sections: Vec<_> = texts.into_iter().map(|(text, of)| (of, text)).collect();
    sections.sort();
    for (of, text) in sections {
        let rule = "-".repeat(100);
        out.push_str(&format!("{rule}\n{}\n{rule}\n\n{}\n\n", wrapped(&of), text.trim()));
    }
    Ok(out)
}

/// What `ubique` is linked with, by name.
fn linked(metadata: &Value) -> Result<Vec<Linked>, String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_id = |values: Vec<Value>| values.into_iter().map(|v| (text(&v["id"]), v)).collect::<BTreeMap<_, _>>();
    let (packages, nodes) = (by_id(list(&metadata["packages"])), by_id(list(&metadata["resolve"]["nodes"])));
    let root = packages.values().find(|package| package["name"] == "ubique").ok_or("cargo knows no package ubique")?;
    let (mut seen, mut next) = (BTreeSet::new(), vec![text(&root["id"])]);
    while let Some(id) = next.pop() {
        if seen.insert(id.clone()) {
            let normal = |d: &&Value| list(&d["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            next.extend(list(&nodes[&id]["deps"]).iter().filter(normal).map(|d| text(&d["pkg"])));
        }
    }
    let mut linked = Vec::new();
    // Ours have no source.
    for package in seen.iter().filter_map(|id| packages.get(id)).filter(|package| !package["source"].is_null()) {
        let (name, version, licence) = (text(&package["name"]), text(&package["version"]), text(&package["license"]));
        if !is_accepted(&licence) {
            return Err(format!("{name} {version} is under {licence:?}: read it, then add it to what dist accepts"));
        }
        let manifest = text(&package["manifest_path"]);
        let texts = texts(Path::new(&manifest).parent().unwrap_or(Path::new("/")))?;
        if texts.is_empty() {
            return Err(format!("{name} {version} ({licence}) comes without the text of its licence"));
        }
        linked.push(Linked { name, version, licence, texts });
    }
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(linked)
}

/// Whether an SPDX expression can be met: one of each OR, all of each AND. Some write `/` for OR.
fn is_accepted(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    let one = |licence: &str| ACCEPTED.contains(&licence.trim().split(" WITH ").next().unwrap_or_default().trim());
    plain.split(" AND ").all(|part| part.split(" OR ").any(one))
}

/// Texts of licences in a directory, without differences of line ends.
fn texts(directory: &Path) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && TEXTS.iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    files.sort();
    let read = |path: &std::path::PathBuf| fs::read(path).map_err(failed(path));
    files.iter().map(|path| Ok(String::from_utf8_lossy(&read(path)?).replace("\r\n", "\n"))).collect()
}

/// Names in lines of at most a hundred characters.
fn wrapped(names: &[String]) -> String {
    let mut lines = vec![String::new()];
    for name in names {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(name),
            Some(line) if line.len() + name.len() < 98 => line.push_str(&format!(", {name}")),
            _ => lines.push(name.clone()),
        }
    }
    lines.join(",\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        for good in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0 AND ISC"]
        {
            assert!(is_accepted(good), "{good}");
        }
        assert!(is_accepted("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
        for bad in ["", "GPL-3.0", "MIT AND GPL-2.0", "LGPL-2.1 OR MPL-2.0"] {
            assert!(!is_accepted(bad), "{bad}");
        }
    }

    #[test]
    fn everything_linked_has_an_accepted_licence_with_its_text() {
        let file = third_party("x86_64-unknown-linux-gnu").unwrap();
        for expected in ["\ntokio 1.", "\nring 0.", "Apache License", "GNU C Library"] {
            assert!(file.contains(expected), "{expected}");
        }
        assert!(!file.contains("proptest"), "what only tests need is not linked");
        assert!(!file.contains("/registry/"), "no path of this machine");
    }
}
