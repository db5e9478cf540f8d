//! What is known of actions without playing them.

use ubique_model::scenario::{Action, SiteSelector};

/// The site selector of an action.
pub(super) fn selector(action: &Action) -> Option<&SiteSelector> {
    match action {
        Action::Converge { .. } | Action::Wait | Action::Crowd { .. } | Action::Divert { .. } => None,
        Action::KillService { site }
        | Action::HangService { site }
        | Action::FailCheck { site }
        | Action::PassCheck { site }
        | Action::ResumeService { site }
        | Action::StartService { site }
        | Action::KillAgent { site }
        | Action::StopAgent { site }
        | Action::StartAgent { site }
        | Action::Drain { site }
        | Action::Undrain { site }
        | Action::FreezeSite { site }
        | Action::ThawSite { site }
        | Action::CutSite { site }
        | Action::RestoreSite { site } => Some(site),
    }
}

/// The action as scenario files spell it.
pub(super) fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Converge { .. } => "converge",
        Action::Wait => "wait",
        Action::Crowd { .. } => "crowd",
        Action::Divert { .. } => "divert",
        Action::KillService { .. } => "kill-service",
        Action::HangService { .. } => "hang-service",
        Action::FailCheck { .. } => "fail-check",
        Action::PassCheck { .. } => "pass-check",
        Action::ResumeService { .. } => "resume-service",
        Action::StartService { .. } => "start-service",
        Action::KillAgent { .. } => "kill-agent",
        Action::StopAgent { .. } => "stop-agent",
        Action::StartAgent { .. } => "start-agent",
        Action::Drain { .. } => "drain",
        Action::Undrain { .. } => "undrain",
        Action::FreezeSite { .. } => "freeze-site",
        Action::ThawSite { .. } => "thaw-site",
        Action::CutSite { .. } => "cut-site",
        Action::RestoreSite { .. } => "restore-site",
    }
}

/// Whether an action takes something away, as opposed to giving it back.
pub(super) fn is_fault(action: &Action) -> bool {
    matches!(
        action,
        Action::KillService { .. }
            | Action::HangService { .. }
            | Action::FailCheck { .. }
            | Action::KillAgent { .. }
            | Action::StopAgent { .. }
            | Action::Drain { .. }
            | Action::FreezeSite { .. }
            | Action::CutSite { .. }
    )
}
