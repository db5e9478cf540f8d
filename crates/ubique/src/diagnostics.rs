//! Rendering of diagnostics, once for all commands.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use ubique_model::diagnostic::{Diagnostic, Severity};

/// Longest source line shown whole; longer ones are cut around the place by the renderer.
const WIDTH: usize = 140;
/// Most findings rendered for one file; the rest is counted.
const SHOWN: usize = 50;

/// Renders findings with the lines they are about. `source`: text of the file, lossily decoded; spans beyond
/// it or inside a character are shown without a snippet.
pub fn render(diagnostics: &[Diagnostic], source: &str, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
        let span = diagnostic.start..diagnostic.end.max(diagnostic.start);
        let fits = source.get(span.clone()).is_some();
        let group = if fits && !source.is_empty() {
            let annotation = AnnotationKind::Primary.span(span);
            let annotation = match &diagnostic.cause {
                Some(cause) => annotation.label(cause.as_str()),
                None => annotation,
            };
            title.element(Snippet::source(source).path(diagnostic.file.as_str()).annotation(annotation))
        } else {
            let place = format!("at {}:{}:{}", diagnostic.file, diagnostic.line, diagnostic.column);
            let group = Group::with_title(title).element(Level::NOTE.message(place));
            match &diagnostic.cause {
                Some(cause) => group.element(Level::NOTE.message(cause.as_str())),
                None => group,
            }
        };
        let group = match &diagnostic.fix {
            Some(fix) => group.element(Level::HELP.message(fix.as_str())),
            None => group,
        };
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    if diagnostics.len() > SHOWN {
        text.push_str(&format!("… and {} more findings\n", diagnostics.len() - SHOWN));
    }
    text
}

/// `3 errors, 1 warning`.
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no findings".to_string(),
        (e, 0) => plural(e, "error"),
        (0, w) => plural(w, "warning"),
        (e, w) => format!("{}, {}", plural(e, "error"), plural(w, "warning")),
    }
}
