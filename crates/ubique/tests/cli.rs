//! The program as a user types it: `check`, help, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn ubique(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ubique"))
        .args(arguments)
        .current_dir(root())
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

/// A file of the given content in a directory of its own.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

#[test]
fn every_example_is_right() {
    for (name, kind) in [
        ("quickstart.toml", "service"),
        ("quickstart-internet.toml", "internet"),
        ("quickstart-scenario.toml", "scenario"),
    ] {
        let output = ubique(&["check", "--kind", kind, &format!("examples/{name}")]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("no findings"), "{name}: {}", stderr(&output));
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = std::fs::read_to_string(root().join("examples/quickstart.toml")).expect("the example");
    let text = text.replacen("prefixes  =", "prefixs   =", 1).replacen("\"100ms\"", "\"100mz\"", 1).replacen(
        "\"Tokyo, JP\"",
        "\"Tokio, JP\"",
        1,
    );
    let path = file("three-mistakes.toml", text.as_bytes());
    let output = ubique(&["check", &path.display().to_string(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["ok"], false);
    let diagnostics = report["diagnostics"].as_array().expect("a list");
    for wrong in ["prefixs", "100mz", "Tokio"] {
        let offset = text.find(wrong).expect("the mistake");
        let line = text[..offset].matches('\n').count() as u64 + 1;
        let found = diagnostics.iter().find(|d| d["line"] == line && d["severity"] == "error");
        let found = found.unwrap_or_else(|| panic!("nothing at line {line} for {wrong}: {report:#}"));
        assert!(found["column"].as_u64().is_some_and(|column| column > 0));
        assert!(found["code"].as_str().is_some_and(|code| code.starts_with("E0")));
    }

    let output = ubique(&["check", &path.display().to_string()]);
    let shown = stderr(&output);
    assert!(shown.contains("three-mistakes.toml:"), "{shown}");
    assert!(shown.contains("Tokio"), "the line itself is shown: {shown}");
}

#[test]
fn what_is_printed_with_defaults_is_the_same_service() {
    let first = ubique(&["check", "--print", "examples/quickstart.toml"]);
    assert!(first.status.success());
    let path = file("printed.toml", &first.stdout);
    let second = ubique(&["check", "--print", &path.display().to_string()]);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(stdout(&first), stdout(&second));
    assert!(stdout(&first).contains("hold-time"), "defaults are written out");
}

#[test]
fn schemas_and_explanations() {
    for kind in ["service", "scenario", "internet"] {
        let output = ubique(&["check", "--schema", "--kind", kind]);
        let schema: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        assert!(schema["$schema"].as_str().is_some_and(|s| s.contains("2020-12")), "{kind}");
        assert!(schema["properties"].as_object().is_some_and(|p| !p.is_empty()), "{kind}");
    }
    let code = {
        let path = file("empty.toml", b"");
        let output = ubique(&["check", &path.display().to_string(), "--output", "json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        report["diagnostics"][0]["code"].as_str().expect("a code").to_string()
    };
    assert!(stdout(&ubique(&["check", "--explain", &code])).starts_with(&code));
    assert_eq!(ubique(&["check", "--explain", "E9999"]).status.code(), Some(2));
}

#[test]
fn exit_codes() {
    assert_eq!(ubique(&["check", "no-such-file.toml"]).status.code(), Some(3));
    assert_eq!(ubique(&["frobnicate"]).status.code(), Some(2));
    let unknown_site = ubique(&["run", "examples/quickstart.toml", "--site", "atlantis"]);
    assert_eq!(unknown_site.status.code(), Some(2));
    assert!(stderr(&unknown_site).contains("nyc, lon, tyo"), "{}", stderr(&unknown_site));
    let nobody = ubique(&["status", "--socket", "/nonexistent/agent.sock"]);
    assert_eq!(nobody.status.code(), Some(3));
    assert!(stderr(&nobody).contains("no agent answers"), "{}", stderr(&nobody));
    let wrong_step = file("wrong-site.toml", b"name = \"x\"\n[[step]]\naction = \"drain\"\nsite = \"atlantis\"\n");
    let output = ubique(&["rehearse", "--scenario", &wrong_step.display().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("atlantis"), "{}", stderr(&output));
    for (file, missing) in
        [("examples/quickstart.toml", "[sessions]"), ("examples/sessions/service.toml", "[[session]]")]
    {
        let nothing_to_control = ubique(&["rehearse", file, "--control"]);
        assert_eq!(nothing_to_control.status.code(), Some(2));
        assert!(stderr(&nothing_to_control).contains(&format!("has no {missing}")), "{}", stderr(&nothing_to_control));
    }
}

#[test]
fn run_says_what_it_would_announce() {
    let output = ubique(&["run", "examples/quickstart.toml", "--site", "lon", "--dry-run"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.contains("+ announce 198.51.100.0/24 to AS64613 at 192.0.2.5"), "{text}");
    assert!(text.contains("+ announce 2001:db8:53::/48 to AS64613"), "{text}");
    let announced = text.lines().filter(|line| line.starts_with("+ announce")).count();
    assert_eq!(announced, 2, "one family for each session: {text}");
}

#[test]
fn help_leads_with_examples() {
    let operators = ["drain", "undrain", "attract", "blackhole", "filter", "actions"];
    for command in ["", "check", "rehearse", "run", "routes", "replay", "sessions"].into_iter().chain(operators) {
        let output = ubique(&[command, "--help"].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>());
        assert!(output.status.success());
        assert!(stdout(&output).starts_with("Examples:"), "{command:?}: {}", stdout(&output));
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&ubique(&["completions", shell]));
        for word in ["rehearse", "routes", "received", "replay", "differences"] {
            assert!(script.contains(word), "{word} in {shell}");
        }
    }
}

/// What a QUIC server is told follows from the secret alone; the number from the site.
#[test]
fn a_server_is_told_key_and_number() {
    let secret = file("secret", "0123456789abcdef".repeat(4).as_bytes());
    let set_mode = |mode| std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode));
    set_mode(0o600).expect("it is ours");
    let text = std::fs::read_to_string(root().join("examples/quickstart.toml")).expect("the example");
    let sites: Vec<&str> = text.split("[[site]]\n").collect();
    let mut numbered = sites[0].to_owned() + &format!("[sessions]\nsecret-file = {:?}\n", secret.display().to_string());
    for (number, site) in sites[1..].iter().enumerate() {
        numbered += &format!("[[site]]\nnumber = {number}\nunicast = [\"192.0.2.{}\"]\n{site}", 200 + number);
    }
    let path = file("sessions.toml", numbered.as_bytes()).display().to_string();
    let output = ubique(&["sessions", "key", &path, "--site", "lon", "--output", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("\"key\":\"dba0b371ea57f23a5f3d523115034244\"") && text.contains("\"rotation\":0"), "{text}");
    assert!(stdout(&ubique(&["sessions", "key", &path, "--site", "lon"])).contains("key      dba0b371"));
    assert_eq!(ubique(&["sessions", "key", &path, "--site", "mars"]).status.code(), Some(2));
    set_mode(0o644).expect("it is ours");
    let output = ubique(&["sessions", "key", &path, "--site", "lon"]);
    assert!(output.status.code() == Some(3) && stderr(&output).contains("chmod o="), "{}", stderr(&output));
    let plain = root().join("examples/quickstart.toml").display().to_string();
    let output = ubique(&["sessions", "key", &plain, "--site", "lon"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("no [sessions]"), "{}", stderr(&output));
}

#[test]
fn commands_that_ask_an_agent_do_not_repeat_warnings() {
    let text = std::fs::read_to_string(root().join("examples/quickstart.toml")).expect("the example");
    let upstream = "[[site.upstream]]\nasn      = 64613\naddress  = \"2001:db8:ffff:2::1\"\nrelation = \"transit\"\n";
    assert!(text.contains(upstream));
    let path = file("warned.toml", text.replace(upstream, "").as_bytes()).display().to_string();
    assert!(stderr(&ubique(&["check", &path])).contains("warning"), "there is something to warn of");
    for command in ["status", "routes"] {
        let output = ubique(&[command, &path, "--site", "lon"]);
        assert_eq!(output.status.code(), Some(3), "no agent answers");
        assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
    }
}

#[test]
fn actions_that_make_no_sense_are_bad_input() {
    let path = root().join("examples/quickstart.toml").display().to_string();
    let lon = ["--site", "lon"];
    for (arguments, said) in [
        (&["attract", &path, "198.51.100.0/25"][..], "--for"),
        (&["attract", &path, "198.51.100.0/25", "--for", "soon"], "--for"),
        (&["attract", &path, "198.51.100.1/25", "--for", "1h"], "198.51.100.0/25 was probably meant"),
        (&["blackhole", &path, "everything", "--for", "1h"], "neither a prefix"),
        (&["blackhole", "198.51.100.53", "--for", "1h"], "name a service file"),
        (&["filter", &path, "drop it", "--for", "1h"], "is no condition"),
        (&["filter", &path, "dst 198.51.100.53/32", "--then", "vanish", "--for", "1h"], "is no action"),
        (&["drain", &path, "--until", "2001-01-01T00:00Z"], "has passed"),
        (&["drain", &path, "--until", "tomorrow"], "2026-11-21T03:00:00Z"),
    ] {
        let output = ubique(&[arguments, &lon].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
    for arguments in
        [&["actions", &path][..], &["drain", &path, "--yes"], &["blackhole", &path, "198.51.100.53", "--for", "1h"]]
    {
        let output = ubique(&[arguments, &lon].concat());
        assert_eq!(output.status.code(), Some(3), "no agent answers: {}", stderr(&output));
    }
}

#[test]
fn a_huge_file_is_refused_at_once() {
    let path = file("huge.toml", &vec![b'#'; 10 << 20]);
    let output = ubique(&["check", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn check_here_asks_the_kernel() {
    let text = std::fs::read(root().join("crates/ubique-model/tests/files/service.toml")).expect("the file");
    let path = file("tcp-ao.toml", &text).display().to_string();
    assert!(ubique(&["check", &path]).status.success(), "the file is right wherever it is looked at");
    let output = ubique(&["check", "--here", &path]);
    if ubique_sys::tcp::has_ao().expect("the probe works") {
        println!("skipped: this kernel has TCP-AO");
        assert!(output.status.success());
        return;
    }
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for expected in ["E0316", "TCP-AO needs a kernel", "password-file", "tcp-ao ="] {
        assert!(stderr(&output).contains(expected), "{expected} not in {}", stderr(&output));
    }
}
