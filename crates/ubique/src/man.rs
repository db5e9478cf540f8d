//! Manual pages, from the declarations of the command line: one for the program and one for each command, with the
//! examples that `--help` shows.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::arguments::Arguments;

/// What all commands have in common (see `Exit`).
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
.B 0
fine
.TP
.B 1
findings: a check, an expectation or an assertion failed
.TP
.B 2
bad input
.TP
.B 3
could not run
.TP
.B 4
refused by a guard
.SH FILES
.TP
.I /etc/ubique/service.toml
the service file, the same on every site
.TP
.I /run/ubique/SERVICE\\-SITE.sock
admin socket of an agent
.TP
.I /var/lib/ubique
what outlives an agent: state, journal, MRT files
";

/// Writes all pages into `directory`.
pub fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut all = Arguments::command();
    all.build();
    page(directory, &all, "ubique", &all)?;
    for command in all.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        page(directory, command, &format!("ubique-{}", command.get_name()), &all)?;
    }
    Ok(())
}

fn page(directory: &Path, command: &Command, name: &str, all: &Command) -> io::Result<()> {
    let examples = command.get_before_help().map(|text| text.to_string());
    let shown = command.clone().before_help("").display_name(name.to_owned());
    let man = Man::new(shown);
    let mut text = Vec::new();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if std::ptr::eq(command, all) {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = examples {
        let lines = examples.lines().map(str::trim_end).filter(|line| !line.is_empty() && *line != "Examples:");
        writeln!(text, ".SH EXAMPLES\n.nf")?;
        for line in lines {
            writeln!(text, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?;
        }
        writeln!(text, ".fi")?;
    }
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    see_also(&mut text, name, all)?;
    fs::write(directory.join(format!("{name}.1")), tidied(&String::from_utf8_lossy(&text), name))
}

/// The page with its title, without what linters find in the pieces: the generator leaves out an empty date, so that the version
/// stands in its place, begins each section anew, and makes empty lines of three requests.
fn tidied(text: &str, name: &str) -> String {
    const QUOTE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";
    let text = text.replace(QUOTE, "").replace("\n.br\n\n.br\n", "\n.sp\n");
    // Without a date: pages are the same whenever they are made.
    let version = env!("CARGO_PKG_VERSION");
    format!("{QUOTE}.TH {} 1 \"\" \"ubique {version}\" ubique\n{text}", name.to_uppercase())
}

fn see_also(text: &mut Vec<u8>, name: &str, all: &Command) -> io::Result<()> {
    let commands = all.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    let names = std::iter::once("ubique".to_owned()).chain(commands.map(|c| format!("ubique-{}", c.get_name())));
    let others: Vec<String> =
        names.filter(|n| n != name).map(|n| format!(".BR {} (1)", n.replace('-', "\\-"))).collect();
    writeln!(text, ".SH \"SEE ALSO\"\n{}", others.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let directory = std::env::temp_dir().join(format!("ubique-man-{}", std::process::id()));
        write(&directory).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        let run = read("ubique-run.1");
        for part in
            [".SH NAME", ".SH SYNOPSIS", "dry\\-run", ".SH EXAMPLES", "\\-\\-site lon", "EXIT STATUS", "ubique\\-drain"]
        {
            assert!(run.contains(part), "{part} not in\n{run}");
        }
        assert!(read("ubique.1").contains("ubique\\-run"), "the program's page names the commands");
        assert!(!directory.join("ubique-internal.1").exists());
        let commands = Arguments::command();
        let visible = commands.get_subcommands().filter(|c| !c.is_hide_set()).count();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), visible + 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
