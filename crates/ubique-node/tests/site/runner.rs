//! Runs tests one after another, each as PID 1 of a sandbox of its own, and reports as `cargo test` does.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Instant;

use ubique_sys::sandbox;

/// A test with what it needs on the machine.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub run: fn(),
}

/// Runs those whose names contain an argument, or all.
pub fn run(tests: &[Test]) {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return;
    }
    let chosen: Vec<&Test> =
        tests.iter().filter(|t| filters.is_empty() || filters.iter().any(|f| t.name.contains(f.as_str()))).collect();
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for test in &chosen {
        if let Some(missing) = test.needs.iter().find(|program| !Path::new(program).exists()) {
            eprintln!("skipped: {} needs {missing}", test.name);
            println!("test {} ... ignored", test.name);
            skipped += 1;
            continue;
        }
        let start = Instant::now();
        let code = sandbox::spawn(|| i32::from(std::panic::catch_unwind(AssertUnwindSafe(test.run)).is_err()))
            .expect("a sandbox stands")
            .wait()
            .expect("a sandbox ends");
        let verdict = if code == 0 { "ok" } else { "FAILED" };
        println!("test {} ... {verdict} ({:.1} s)", test.name, start.elapsed().as_secs_f64());
        if code == 0 {
            passed += 1;
        } else {
            failed.push(test.name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out\n",
        failed.len(),
        tests.len() - chosen.len()
    );
    if !failed.is_empty() {
        eprintln!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}
