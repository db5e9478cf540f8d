//! `cargo xtask dist`: what is copied to sites: a static tarball and a Debian package.
//!
//! Both hold the static binary, licences, manual pages and completions (from the command line's declarations), the unit,
//! examples and documents. The same source gives the same octets: times are those of the last commit (or `SOURCE_DATE_EPOCH`),
//! owners are root, names are sorted, and no path of the machine is in the binary. `dpkg-deb` makes the package: that format is its
//! business. `--test` installs, runs, upgrades and removes it in a fresh Debian root (`pkg/test-deb`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::bench::size;
use crate::command::{self, root};

/// What to build.
#[derive(Args)]
pub struct Arguments {
    /// Where the files go.
    #[arg(long, default_value = "target/dist")]
    output: PathBuf,
    /// Package this program instead of building a static one: for tests.
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
    let output = std::path::absolute(&arguments.output).map_err(|e| e.to_string())?;
    fs::create_dir_all(&output).map_err(failed(&output))?;
    let dist = Dist { version, binary, epoch: epoch()?, output, quick: arguments.binary.is_some() };
    let (tarball, package) = (dist.tarball()?, dist.package(&dist.version)?);
    for file in [&tarball, &package] {
        let octets = fs::metadata(file).map_err(failed(file))?.len();
        println!("{}  {:.1} MiB", file.display(), octets as f64 / f64::from(1 << 20));
    }
    if arguments.test {
        let before = dist.package(&format!("{}{BEFORE}", dist.version))?;
        let files = [before.to_string_lossy(), package.to_string_lossy()];
        return command::run(root().join("pkg/test-deb"), &[&files[0], &files[1]]);
    }
    Ok(())
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
    /// Packed for a test, not for sites.
    quick: bool,
}

impl Dist {
    /// An empty directory to put files into.
    fn stage(&self, name: &str) -> Result<Stage, String> {
        let directory = self.output.join(format!(".{name}"));
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(failed(&directory))?;
        }
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        Ok(Stage(directory))
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
        stage.copy(&root().join("pkg/systemd/ubique@.service"), &format!("{name}/systemd/ubique@.service"), 0o644)?;
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
    fn package(&self, version: &str) -> Result<PathBuf, String> {
        let architecture = output_of("dpkg", &["--print-architecture"])?;
        let stage = self.stage("package")?;
        let doc = "usr/share/doc/ubique";
        self.common(&stage, "usr/bin", doc, "usr/share")?;
        let own = root().join("pkg");
        stage.copy(&own.join("systemd/ubique@.service"), "usr/lib/systemd/system/ubique@.service", 0o644)?;
        stage.copy(&own.join("default"), "etc/default/ubique", 0o644)?;
        stage.copy(&own.join("debian/copyright"), &format!("{doc}/copyright"), 0o644)?;
        stage.copy(&own.join("debian/lintian-overrides"), "usr/share/lintian/overrides/ubique", 0o644)?;
        for directory in ["etc/ubique", "var/lib/ubique"] {
            stage.directory(directory)?;
        }
        let maintainer = std::env::var("DEBEMAIL").unwrap_or_else(|_| MAINTAINER.to_owned());
        let date = output_of("date", &["-u", "-R", "-d", &format!("@{}", self.epoch)])?;
        let history = format!(
            "ubique ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md in this directory.\n\n -- {maintainer}  {date}\n"
        );
        stage.write(&format!("{doc}/changelog"), &history, 0o644)?;
        stage.compress(&format!("{doc}/changelog"))?;
        stage.compress(&format!("{doc}/CHANGELOG.md"))?;
        stage.compress("usr/share/man/man1")?;
        let size = (stage.octets()? / 1024).to_string();
        for (name, mode) in
            [("control", 0o644), ("conffiles", 0o644), ("postinst", 0o755), ("prerm", 0o755), ("postrm", 0o755)]
        {
            let file = own.join("debian").join(name);
            let mut text = fs::read_to_string(&file).map_err(failed(&file))?;
            for (key, value) in [
                ("@VERSION@", version),
                ("@ARCHITECTURE@", &architecture),
                ("@MAINTAINER@", &maintainer),
                ("@SIZE@", &size),
            ] {
                text = text.replace(key, value);
            }
            stage.write(&format!("DEBIAN/{name}"), &text, mode)?;
        }
        stage.sums()?;
        let file = self.output.join(format!("ubique_{version}_{architecture}.deb"));
        let (from, to) = (stage.0.to_string_lossy(), file.to_string_lossy());
        let time = format!("SOURCE_DATE_EPOCH={}", self.epoch);
        // A test's build is large and thrown away.
        let pack: &[&str] = if self.quick { &["-Zgzip", "-z1"] } else { &["-Zxz"] };
        let words = [&[&time, "dpkg-deb", "--root-owner-group"], pack, &["--build", &from, &to]].concat();
        command::run("env", &words)?;
        stage.remove()?;
        Ok(file)
    }
}

/// A directory that becomes an archive.
struct Stage(PathBuf);

impl Stage {
    fn directory(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).map_err(failed(&path))?;
        Ok(path)
    }

    fn place(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        Ok(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), String> {
        let path = self.place(name)?;
        fs::write(&path, text).map_err(failed(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed(&path))
    }

    fn copy(&self, from: &Path, name: &str, mode: u32) -> Result<(), String> {
        let path = self.place(name)?;
        fs::copy(from, &path).map_err(failed(from))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed(&path))
    }

    /// The files below a directory; programs stay programs.
    fn tree(&self, from: &Path, name: &str) -> Result<(), String> {
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

    /// Compresses a file, or those of a directory, without names and times in it.
    fn compress(&self, name: &str) -> Result<(), String> {
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

    fn octets(&self) -> Result<u64, String> {
        self.files()?.iter().map(|file| Ok(fs::metadata(file).map_err(failed(file))?.len())).sum()
    }

    /// `DEBIAN/md5sums`, which tools look for.
    fn sums(&self) -> Result<(), String> {
        let mut text = String::new();
        for file in self.files()?.iter().filter(|file| !file.starts_with(self.0.join("DEBIAN"))) {
            let name = file.strip_prefix(&self.0).map_err(|e| e.to_string())?;
            let line = output_of("md5sum", &[&file.to_string_lossy()])?;
            let sum = line.split_whitespace().next().unwrap_or_default();
            text.push_str(&format!("{sum}  {}\n", name.display()));
        }
        self.write("DEBIAN/md5sums", &text, 0o644)
    }

    fn remove(&self) -> Result<(), String> {
        fs::remove_dir_all(&self.0).map_err(failed(&self.0))
    }
}
