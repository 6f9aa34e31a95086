//! Shows the problems of a configuration with their lines of the file.

use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use super::error::ConfigProblem;

/// Returns the problems, each with the line that it is in.
pub(super) fn source_lines(
    file: Option<&Path>,
    text: &str,
    problems: &[ConfigProblem],
    is_colored: bool,
) -> String {
    let path = file.map(|file| file.display().to_string());
    let groups = problems.iter().map(|problem| {
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.message.as_str()));
        if let Some(span) = &problem.span {
            let at = AnnotationKind::Primary.span(span.clone());
            let snippet = Snippet::source(text).path(path.as_deref()).annotation(at);
            group = group.element(snippet);
        }
        match &problem.hint {
            Some(hint) => group.element(Level::HELP.message(hint.as_str())),
            None => group,
        }
    });
    let renderer = match is_colored {
        true => Renderer::styled().decor_style(DecorStyle::Unicode),
        false => Renderer::plain(),
    };
    let groups: Vec<_> = groups.collect();
    renderer.render(&groups)
}
