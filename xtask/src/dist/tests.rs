//! The package and its pages, from the program that the other tests have built.

use std::io::Write;
use std::process::Stdio;

use super::*;

/// `ubique` beside this test's program; `None`: it is not built.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.parent()?.join("ubique");
    if !program.exists() {
        eprintln!("skipped: {} is not there: cargo build -p ubique", program.display());
    }
    program.exists().then_some(program)
}

fn dist(name: &str, binary: PathBuf) -> Dist {
    let output = std::env::temp_dir().join(format!("ubique-dist-{}-{name}", std::process::id()));
    fs::create_dir_all(&output).unwrap();
    Dist { version: "1.2.3".into(), binary, epoch: "1700000000".into(), output }
}

/// What linters say of a page, where they are installed.
fn lint(page: &Path) {
    let text = fs::read(page).unwrap();
    for (linter, arguments) in
        [("mandoc", &["-T", "lint", "-W", "warning"][..]), ("groff", &["-man", "-ww", "-z", "-K", "utf8"])]
    {
        let child = Command::new(linter)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: needs {linter}");
            continue;
        };
        child.stdin.take().unwrap().write_all(&text).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // The date is that of the source, which a page does not name: the same octets whenever it is made.
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(said.is_empty(), "{linter} on {}:\n{}", page.display(), said.join("\n"));
    }
}

#[test]
fn a_package_has_what_it_says_and_is_the_same_each_time() {
    let (Some(program), true) = (program(), command::installed("dpkg-deb")) else { return };
    let small = dist("stripped", program.clone());
    let stripped = small.output.join("ubique");
    fs::copy(&program, &stripped).unwrap();
    command::run("strip", &[&stripped.to_string_lossy()]).unwrap();
    let [one, two] = ["one", "two"].map(|name| dist(name, stripped.clone()));
    let [first, second] = [&one, &two].map(|dist| dist.package("1.2.3", Packing::Quick).unwrap());
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap(), "not the same octets");
    let listing = output_of("dpkg-deb", &["--contents", &first.to_string_lossy()]).unwrap();
    assert!(listing.lines().all(|line| line.contains(" root/root ")), "{listing}");
    assert!(listing.lines().all(|line| line.starts_with("drwxr-xr-x") || line.starts_with("-rw")), "{listing}");
    let has = |path: &str| listing.lines().any(|line| line.ends_with(&format!(" .{path}")));
    for path in [
        "/usr/bin/ubique",
        "/usr/lib/sysusers.d/ubique.conf",
        "/usr/lib/tmpfiles.d/ubique.conf",
        "/etc/default/ubique",
        "/usr/share/man/man1/ubique.1.gz",
        "/usr/share/man/man5/ubique.toml.5.gz",
        "/usr/share/bash-completion/completions/ubique",
        "/usr/share/zsh/vendor-completions/_ubique",
        "/usr/share/fish/vendor_completions.d/ubique.fish",
        "/usr/share/doc/ubique/copyright",
        "/usr/share/doc/ubique/changelog.gz",
        "/usr/share/doc/ubique/THIRD-PARTY.gz",
        "/usr/share/doc/ubique/prometheus/ubique.rules.yml",
        "/usr/share/doc/ubique/grafana/site.json",
        "/usr/share/doc/ubique/examples/quickstart.toml",
    ] {
        assert!(has(path), "{path} is not in\n{listing}");
    }
    // What the unit names is there: pages, documents, and what it starts.
    let unit = fs::read_to_string(root().join("pkg/systemd/ubique@.service")).unwrap();
    let documents = unit.lines().find_map(|line| line.strip_prefix("Documentation=")).unwrap();
    for document in documents.split(' ') {
        let path = match document.strip_prefix("man:").and_then(|page| page.trim_end_matches(')').split_once('(')) {
            Some((page, section)) => format!("/usr/share/man/man{section}/{page}.{section}.gz"),
            None => document.strip_prefix("file://").unwrap().to_owned(),
        };
        assert!(has(&path), "the unit names {document}, which is not in\n{listing}");
    }
    for dist in [small, one, two] {
        fs::remove_dir_all(dist.output).unwrap();
    }
}

#[test]
fn manual_pages_are_without_fault() {
    let Some(program) = program() else { return };
    let directory = dist("pages", program.clone()).output;
    let pages = directory.join("man1");
    output_of(&program.to_string_lossy(), &["internal", "man", &pages.to_string_lossy()]).unwrap();
    let service_file = directory.join("ubique.toml.5");
    let markdown = fs::read_to_string(root().join("docs/service-file.md")).unwrap();
    fs::write(&service_file, manual::service_file(&markdown, "1.2.3")).unwrap();
    let mut all: Vec<PathBuf> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.push(service_file);
    assert!(all.len() > 15, "{all:?}");
    all.iter().for_each(|page| lint(page));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_page_is_made_of_the_markdown_of_the_manual() {
    let page = manual::service_file(
        "# The file\n\nSee [all codes](x.md), `a-b` and **this**.\n.x\n\n- one\n  more\n\n```toml\n.a = \"\\\\\"\n```\n\n\
         ### `[[check]]`\n\n| key | value | default | meaning |\n|---|---|---|---|\n| `k` | 1 | – | What. |\n",
        "1",
    );
    for expected in [
        ".SH DESCRIPTION\nSee all codes, \\fBa\\-b\\fR and \\fBthis\\fR.\n\\&.x\n",
        ".IP \\(bu 2\none\nmore\n",
        ".nf\n\\&.a = \"\\e\\e\"\n.fi\n",
        ".SS \"[[check]]\"\n.TP\n\\fBk\\fR\nWhat.\n.br\nvalue: 1\n",
    ] {
        assert!(page.contains(expected), "{expected}\nnot in\n{page}");
    }
}
