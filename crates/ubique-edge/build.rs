//! Compiles the BPF programs with clang, when the feature `bpf` wants them. Without clang the crate builds all the same, and says at run
//! time that there is no data plane.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The objects, each `bpf/NAME.bpf.c`.
const OBJECTS: [&str; 5] = ["base", "adopt", "vectors", "bench", "flood"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(data_plane)");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_BPF").is_none() {
        return;
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    if Command::new(&clang).arg("--version").output().is_err() {
        println!(
            "cargo::warning=there is no {clang}: ubique is built without its data plane (install clang, or set CLANG)"
        );
        return;
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    for object in OBJECTS {
        compile(&clang, object, &out.join(format!("{object}.bpf.o")));
    }
    println!("cargo::rustc-cfg=data_plane");
}

fn compile(clang: &str, object: &str, to: &Path) {
    let source = format!("bpf/{object}.bpf.c");
    let include = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys tells where libbpf's headers are");
    // Where Debian keeps <asm/types.h>.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it"));
    let mut command = Command::new(clang);
    command
        .args([
            "-O2",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-function",
            // Headers are read and written in words, too, as the kernel does and builds.
            "-fno-strict-aliasing",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-c",
            &source,
            "-o",
        ])
        .arg(to);
    command.args(["-I", &include]).args(["-idirafter", &multiarch]);
    // Debugging information without the builder's paths.
    let here = env::current_dir().expect("a build script has a directory");
    command.arg(format!("-ffile-prefix-map={}=.", here.display())).arg(format!("-ffile-prefix-map={include}=include"));
    let status = command.status().unwrap_or_else(|error| panic!("{clang} does not start: {error}"));
    assert!(status.success() && fs::metadata(to).is_ok(), "{clang} could not compile {source}");
}
