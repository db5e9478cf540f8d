//! `cargo xtask dist`: what is copied to sites: a static tarball and a Debian package.
//!
//! Both hold the static binary, the licences of all that is in it (`licences`), manual pages and completions (from the command line's
//! declarations, `ubique.toml(5)` from the generated manual: `manual`), the unit with its user and directories, alert rules, dashboards,
//! examples and documents. The same source gives the same octets: times are those of the last commit (or `SOURCE_DATE_EPOCH`),
//! owners are root, names are sorted, and no path of the machine is in the binary. `dpkg-deb` makes the package: that format is its
//! business. `--test` installs, runs, upgrades and removes it in a fresh Debian root (`pkg/test-deb`).

mod licences;
mod manual;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::bench::size;
use crate::command::{self, root};
use stage::Stage;

/// What to build.
#[derive(Args)]
pub struct Arguments {
    /// Where the files go.
    #[arg(long, default_value = "target/dist")]
    output: PathBuf,
    /// Package this program instead of building a static one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Version, instead of the workspace's.
    #[arg(long)]
    version: Option<String>,
    /// Install, run, upgrade and remove the package in a fresh Debian root; needs root and debootstrap.
    #[arg(long)]
    test: bool,
}

/// Who answers for the package, unless `DEBEMAIL` says it as `Name <address>`.
const MAINTAINER: &str = "ubique maintainers <maintainers@ubique.example>";

/// Sorts before every version of the same name: what `--test` upgrades from.
const BEFORE: &str = "~before";

/// Builds everything.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let version = match &arguments.version {
        Some(version) => version.clone(),
        None => workspace_version()?,
    };
    let binary = match &arguments.binary {
        Some(file) => file.clone(),
        None => size::build()?,
    };
    let faults = faults(&binary)?;
    match &arguments.binary {
        _ if faults.is_empty() => {}
        None => return Err(format!("the binary {}", faults.join(", "))),
        Some(_) => eprintln!("not for sites: the binary {}", faults.join(", ")),
    }
    let output = std::path::absolute(&arguments.output).map_err(|e| e.to_string())?;
    fs::create_dir_all(&output).map_err(failed(&output))?;
    let dist = Dist { version, binary, epoch: epoch()?, output };
    let (tarball, package) = (dist.tarball()?, dist.package(&dist.version, Packing::Small)?);
    dist.sums(&[&tarball, &package])?;
    for file in [&tarball, &package] {
        let octets = fs::metadata(file).map_err(failed(file))?.len();
        println!("{}  {:.1} MiB", file.display(), octets as f64 / f64::from(1 << 20));
    }
    match command::installed("lintian") {
        // What is not for sites has faults that are known.
        true if faults.is_empty() => {
            let package = package.to_string_lossy();
            command::run("lintian", &["--allow-root", "--fail-on", "error,warning", &package])?;
        }
        true => {}
        false => eprintln!("not linted: apt-get install lintian"),
    }
    if arguments.test {
        let before = dist.package(&format!("{}{BEFORE}", dist.version), Packing::Quick)?;
        let files = [before.to_string_lossy(), package.to_string_lossy()];
        return command::run(root().join("pkg/test-deb"), &[&files[0], &files[1]]);
    }
    Ok(())
}

/// What a binary for sites does not do: need libraries, or name directories of the machine it was built on.
fn faults(binary: &Path) -> Result<Vec<String>, String> {
    let octets = fs::read(binary).map_err(failed(binary))?;
    let dynamic = size::is_dynamic(&octets).ok_or("the binary is no 64-bit ELF file")?;
    let dynamic = dynamic.then(|| "needs a dynamic loader".to_owned());
    let names = |path: &str| octets.windows(path.len()).any(|window| window == path.as_bytes());
    let home = std::env::var("HOME").ok().filter(|home| home.len() > 1);
    let places = [Some(root().to_string_lossy().into_owned()), home.map(|home| format!("{home}/"))];
    let named = places.into_iter().flatten().filter(|place| names(place)).map(|place| format!("names {place}"));
    Ok(dynamic.into_iter().chain(named).collect())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn workspace_version() -> Result<String, String> {
    let text = fs::read_to_string(root().join("Cargo.toml")).map_err(|e| e.to_string())?;
    let manifest: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let version = manifest["workspace"]["package"]["version"].as_str();
    version.map(str::to_owned).ok_or_else(|| "the workspace has no version".into())
}

/// The time of everything in the archives, s since 1970.
fn epoch() -> Result<String, String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => Ok(epoch),
        Err(_) => output_of("git", &["log", "-1", "--format=%ct"]),
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

struct Dist {
    version: String,
    binary: PathBuf,
    epoch: String,
    output: PathBuf,
}

/// How a package is compressed.
#[derive(Clone, Copy)]
enum Packing {
    /// For sites.
    Small,
    /// For a test that throws it away.
    Quick,
}

impl Dist {
    /// An empty directory to put files into.
    fn stage(&self, name: &str) -> Result<Stage, String> {
        Stage::empty(self.output.join(format!(".{name}")))
    }

    /// `SHA256SUMS` of the files beside it.
    fn sums(&self, files: &[&PathBuf]) -> Result<(), String> {
        let mut text = String::new();
        for file in files {
            let line = output_of("sha256sum", &[&file.to_string_lossy()])?;
            let sum = line.split_whitespace().next().unwrap_or_default();
            text.push_str(&format!("{sum}  {}\n", file.file_name().unwrap_or_default().to_string_lossy()));
        }
        let path = self.output.join("SHA256SUMS");
        fs::write(&path, text).map_err(failed(&path))
    }

    /// What both archives have, below directories for programs, documents and data.
    fn common(&self, stage: &Stage, bin: &str, doc: &str, share: &str) -> Result<(), String> {
        stage.copy(&self.binary, &format!("{bin}/ubique"), 0o755)?;
        let program = stage.0.join(bin).join("ubique");
        // A release has no symbols any more; a test's build has very many.
        command::run("strip", &[&program.to_string_lossy()])?;
        for name in ["README.md", "CHANGELOG.md", "NOTICE"] {
            stage.copy(&root().join(name), &format!("{doc}/{name}"), 0o644)?;
        }
        stage.write(&format!("{doc}/THIRD-PARTY"), &licences::third_party(&size::host()?)?, 0o644)?;
        stage.tree(&root().join("docs"), &format!("{doc}/docs"))?;
        stage.tree(&root().join("examples"), &format!("{doc}/examples"))?;
        for name in ["prometheus", "grafana", "kubernetes"] {
            let extra = root().join("pkg").join(name);
            if extra.is_dir() {
                stage.tree(&extra, &format!("{doc}/{name}"))?;
            }
        }
        let pages = stage.0.join(share).join("man/man1");
        let run = |arguments: &[&str]| output_of(&program.to_string_lossy(), arguments);
        run(&["internal", "man", &pages.to_string_lossy()])?;
        stage.plain(&format!("{share}/man/man1"))?;
        let reference = root().join("docs/service-file.md");
        let reference = fs::read_to_string(&reference).map_err(failed(&reference))?;
        stage.write(
            &format!("{share}/man/man5/ubique.toml.5"),
            &manual::service_file(&reference, &self.version),
            0o644,
        )?;
        for (shell, place) in [
            ("bash", "bash-completion/completions/ubique"),
            ("zsh", "zsh/vendor-completions/_ubique"),
            ("fish", "fish/vendor_completions.d/ubique.fish"),
        ] {
            stage.write(&format!("{share}/{place}"), &(run(&["completions", shell])? + "\n"), 0o644)?;
        }
        Ok(())
    }

    /// `ubique-VERSION-ARCHITECTURE.tar.gz`, with one directory of that name.
    fn tarball(&self) -> Result<PathBuf, String> {
        let name = format!("ubique-{}-{}", self.version, std::env::consts::ARCH);
        let stage = self.stage("tarball")?;
        self.common(&stage, &format!("{name}/bin"), &format!("{name}/doc"), &format!("{name}/share"))?;
        for licence in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
            stage.copy(&root().join(licence), &format!("{name}/{licence}"), 0o644)?;
        }
        stage.tree(&root().join("pkg/systemd"), &format!("{name}/systemd"))?;
        let file = self.output.join(format!("{name}.tar.gz"));
        let (time, archive) = (format!("--mtime=@{}", self.epoch), file.to_string_lossy());
        let directory = stage.0.to_string_lossy();
        let owners = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--format=gnu"];
        let what = ["-I", "gzip -9n", "-cf", &archive, "-C", &directory, &name];
        command::run("tar", &[owners.as_slice(), &[time.as_str()], &what].concat())?;
        stage.remove()?;
        Ok(file)
    }

    /// `ubique_VERSION_ARCHITECTURE.deb`.
    fn package(&self, version: &str, packing: Packing) -> Result<PathBuf, String> {
        let architecture = output_of("dpkg", &["--print-architecture"])?;
        let stage = self.stage("package")?;
        let doc = "usr/share/doc/ubique";
        self.common(&stage, "usr/bin", doc, "usr/share")?;
        let own = root().join("pkg");
        for (file, place) in [
            ("ubique@.service", "systemd/system/ubique@.service"),
            ("sysusers.conf", "sysusers.d/ubique.conf"),
            ("tmpfiles.conf", "tmpfiles.d/ubique.conf"),
        ] {
            stage.copy(&own.join("systemd").join(file), &format!("usr/lib/{place}"), 0o644)?;
        }
        stage.copy(&own.join("default"), "etc/default/ubique", 0o644)?;
        stage.copy(&own.join("debian/copyright"), &format!("{doc}/copyright"), 0o644)?;
        stage.copy(&own.join("debian/lintian-overrides"), "usr/share/lintian/overrides/ubique", 0o644)?;
        let maintainer = std::env::var("DEBEMAIL").unwrap_or_else(|_| MAINTAINER.to_owned());
        let date = output_of("date", &["-u", "-R", "-d", &format!("@{}", self.epoch)])?;
        let history = format!(
            "ubique ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md in this directory.\n\n -- {maintainer}  {date}\n"
        );
        stage.write(&format!("{doc}/changelog"), &history, 0o644)?;
        for large in ["changelog", "CHANGELOG.md", "THIRD-PARTY"] {
            stage.compress(&format!("{doc}/{large}"))?;
        }
        stage.compress("usr/share/man")?;
        self.control(&stage, version, &architecture, &maintainer)?;
        stage.sums()?;
        let file = self.output.join(format!("ubique_{version}_{architecture}.deb"));
        let (from, to) = (stage.0.to_string_lossy(), file.to_string_lossy());
        let time = format!("SOURCE_DATE_EPOCH={}", self.epoch);
        let pack: &[&str] = match packing {
            // One thread: the octets of several depend on how many there are.
            Packing::Small => &["-Zxz", "--threads-max=1"],
            Packing::Quick => &["-Zgzip", "-z1"],
        };
        let words = [&[&time, "dpkg-deb", "--root-owner-group"], pack, &["--build", &from, &to]].concat();
        command::run("env", &words)?;
        stage.remove()?;
        Ok(file)
    }

    /// `DEBIAN/`: what dpkg reads and runs.
    fn control(&self, stage: &Stage, version: &str, architecture: &str, maintainer: &str) -> Result<(), String> {
        let own = root().join("pkg");
        let size = (stage.octets()? / 1024).to_string();
        for (name, mode) in
            [("control", 0o644), ("conffiles", 0o644), ("postinst", 0o755), ("prerm", 0o755), ("postrm", 0o755)]
        {
            let file = own.join("debian").join(name);
            let mut text = fs::read_to_string(&file).map_err(failed(&file))?;
            for (key, value) in [
                ("@VERSION@", version),
                ("@ARCHITECTURE@", architecture),
                ("@MAINTAINER@", maintainer),
                ("@SIZE@", &size),
            ] {
                text = text.replace(key, value);
            }
            stage.write(&format!("DEBIAN/{name}"), &text, mode)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
