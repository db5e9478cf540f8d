//! Runs the tests, several at a time, and reports as `cargo test` does.

use std::path::Path;

use crate::jobs;

/// A test with what it needs on the machine.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub run: fn(),
}

/// Tests at a time on each core: they mostly wait, for timers of seconds and for daemons that start.
const PER_CORE: usize = 2;

/// The first argument of the process of one test.
pub const PLAY: &str = "play-test";

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
    let runs = |test: &&&Test| {
        let missing = test.needs.iter().find(|program| !Path::new(program).exists());
        if let Some(missing) = missing {
            eprintln!("skipped: {} needs {missing}", test.name);
            println!("test {} ... ignored", test.name);
            skipped += 1;
        }
        missing.is_none()
    };
    let names: Vec<String> = chosen.iter().filter(runs).map(|test| test.name.to_owned()).collect();
    jobs::run_all(names, PLAY, jobs::at_a_time(PER_CORE), |end| {
        let verdict = if end.passed { "ok" } else { "FAILED" };
        print!("{}", end.output);
        println!("test {} ... {verdict} ({:.1} s)", end.name, end.took.as_secs_f64());
        if end.passed {
            passed += 1;
        } else {
            failed.push(end.name.clone());
        }
    });
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
