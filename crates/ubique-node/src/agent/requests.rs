//! From a line of a caller to a request of the loop, and back: the same for the admin socket and the HTTPS API.
//!
//! Reading is for whoever gets this far. What acts is refused to callers who may only read, and takes along who asked,
//! for the log and the events.

use tokio::sync::{mpsc, oneshot};

use super::Request;
use crate::admin::{self, Caller, Refusal};

/// The reply line (without its end) to a request line; `Err`: why not.
pub(super) async fn answer(line: &str, caller: &Caller, requests: mpsc::Sender<Request>) -> Result<String, Refusal> {
    let request: admin::Request =
        serde_json::from_str(line).map_err(|e| Refusal::Malformed(format!("the request cannot be understood: {e}")))?;
    if request.acts() {
        caller.permit()?;
    }
    let who = || caller.who();
    match request {
        admin::Request::Status => text(&ask(&requests, Request::Status).await?),
        admin::Request::Routes(which) => {
            let page = ask(&requests, |reply| Request::Routes { which, reply }).await?;
            text(&page.map_err(Refusal::Refused)?)
        }
        what @ (admin::Request::Act(_)
        | admin::Request::Actions
        | admin::Request::Cancel { .. }
        | admin::Request::DrainWatched(_)
        | admin::Request::DrainProgress) => {
            ask(&requests, |reply| Request::Operator { what, who: who(), reply }).await?
        }
        admin::Request::Drain { reason } => {
            done(ask(&requests, |reply| Request::Drain { reason, who: who(), reply }).await?)
        }
        admin::Request::Undrain { reason } => {
            done(ask(&requests, |reply| Request::Undrain { reason, who: who(), reply }).await?)
        }
    }
}

fn text(reply: &impl serde::Serialize) -> Result<String, Refusal> {
    serde_json::to_string(reply).map_err(|e| Refusal::Refused(e.to_string()))
}

fn done(end: Result<(), String>) -> Result<String, Refusal> {
    end.map(|()| r#"{"ok":true}"#.to_owned()).map_err(Refusal::Refused)
}

/// Asks the loop and waits for its answer.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| Refusal::Ending)?;
    answer.await.map_err(|_| Refusal::Ending)
}
