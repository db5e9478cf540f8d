//! From a line of a caller to a request of the loop, and back: the same for the admin socket and the HTTPS API.
//!
//! Reading is for whoever gets this far. What acts is refused to callers who may only read, and takes along who asked,
//! for the log and the events.

use tokio::sync::{mpsc, oneshot};

use super::reload::Reloader;
use super::upgrade::Upgrader;
use super::{AgentOptions, Request};
use crate::admin::{self, Caller, Refusal};
use crate::state::Receipt;

/// Where callers are answered.
#[derive(Clone)]
pub(super) struct Desk {
    pub requests: mpsc::Sender<Request>,
    pub reloader: Reloader,
    pub upgrader: Upgrader,
}

impl Desk {
    pub(super) fn new(options: &AgentOptions, site: &str, requests: mpsc::Sender<Request>) -> Desk {
        let reloader = Reloader::new(options, site, requests.clone());
        let upgrader = Upgrader::new(options, requests.clone());
        Desk { requests, reloader, upgrader }
    }

    /// The reply line (without its end) to a request line; `Err`: why not.
    pub(super) async fn answer(&self, line: &str, caller: &Caller) -> Result<String, Refusal> {
        let request: admin::Request = serde_json::from_str(line)
            .map_err(|e| Refusal::Malformed(format!("the request cannot be understood: {e}")))?;
        if request.acts() {
            caller.permit()?;
        }
        let who = || caller.who();
        let requests = &self.requests;
        match request {
            admin::Request::Status => text(&ask(requests, Request::Status).await?),
            admin::Request::Routes(which) => {
                let page = ask(requests, |reply| Request::Routes { which, reply }).await?;
                text(&page.map_err(Refusal::Refused)?)
            }
            what @ (admin::Request::Act(_)
            | admin::Request::Actions
            | admin::Request::Cancel { .. }
            | admin::Request::DrainWatched(_)
            | admin::Request::DrainProgress) => {
                let (line, receipt) = ask(requests, |reply| Request::Operator { what, who: who(), reply }).await??;
                Ok(kept(line, receipt).await)
            }
            admin::Request::Reload(how) => text(&self.reloader.reload(how, who()).await),
            admin::Request::Upgrade(how) => text(&self.upgrader.upgrade(how, who()).await),
            admin::Request::Drain { reason } => {
                done(ask(requests, |reply| Request::Drain { reason, who: who(), reply }).await?).await
            }
            admin::Request::Undrain { reason } => {
                done(ask(requests, |reply| Request::Undrain { reason, who: who(), reply }).await?).await
            }
        }
    }
}

fn text(reply: &impl serde::Serialize) -> Result<String, Refusal> {
    serde_json::to_string(reply).map_err(|e| Refusal::Refused(e.to_string()))
}

/// It is done; whether it survives a restart is said when the disk has answered.
async fn done(end: Result<Receipt, String>) -> Result<String, Refusal> {
    let warning = match end.map_err(Refusal::Refused)?.kept().await {
        Ok(()) => return Ok(r#"{"ok":true}"#.to_owned()),
        Err(why) => format!("done, but will not survive a restart because {why}"),
    };
    Ok(serde_json::json!({ "ok": true, "warning": warning }).to_string())
}

/// The reply, with a warning when it will not survive a restart.
async fn kept(line: String, receipt: Option<Receipt>) -> String {
    let Some(receipt) = receipt else { return line };
    let Err(why) = receipt.kept().await else { return line };
    let warning = format!("done, but will not survive a restart because {why}");
    match serde_json::from_str(&line) {
        Ok(serde_json::Value::Object(mut reply)) => {
            reply.insert("warning".to_owned(), warning.into());
            serde_json::Value::Object(reply).to_string()
        }
        _ => line,
    }
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
