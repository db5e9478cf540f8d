//! What an operator asks of an agent beside `status`: timed actions, and drains that are watched.
//!
//! ```text
//! {"query":"act","what":{"kind":"blackhole","prefix":"198.51.100.53/32"},"for_s":1800,"reason":"…"}
//! {"query":"actions"}   {"query":"cancel","id":3,"reason":"…"}
//! {"query":"drain-watched","reason":"…","within_s":600}   {"query":"drain-progress"}
//! ```
//!
//! With `dry_run` nothing is done, and the reply says what would be. A request that a guard refuses is answered by
//! `{"error":"…","guard":true}`: with `confirmed` it would be carried out.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Prefix};
use ubique_proto::actions::Kind;
use ubique_proto::actions::drain::Stage;

/// `{"query":"act"}`: begin an action, or give one that lasts another end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// What: an object with `kind` (`attract`, `blackhole`, `filter`) and what that takes.
    #[schemars(
        with = "serde_json::Value",
        extend("type" = "object", "examples" = [
            { "kind": "blackhole", "prefix": "198.51.100.53/32" },
            { "kind": "attract", "prefix": "198.51.100.0/25" },
        ])
    )]
    pub what: Kind,
    /// For how long, s.
    pub for_s: f64,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Whoever asks knows what share of the service is concerned.
    #[serde(default)]
    pub confirmed: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `{"query":"drain-watched"}`: drain, and watch the traffic go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Why.
    pub reason: String,
    /// Withdraw when the traffic is gone, after so many seconds at the latest; absent: `agent.graceful-shutdown`.
    #[serde(default)]
    pub within_s: Option<f64>,
    /// Refuse when packets cannot be counted, since only the clock would end it.
    #[serde(default)]
    pub until_gone: bool,
    /// Prepend so often in addition before the withdrawal.
    #[serde(default)]
    pub prepend: u8,
    /// Do not run `agent.drain-hook`.
    #[serde(default)]
    pub no_hook: bool,
    /// How long to watch after the withdrawal, s; absent: 10, or with `[sessions]` until no connection is open, an hour at most.
    #[serde(default)]
    pub watch_s: Option<f64>,
    /// With `[sessions]`: the site that new connections are handed to; absent: the nearest that is up.
    #[serde(default)]
    pub to: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an upstream is told of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reached {
    /// Its AS.
    #[schemars(with = "u32")]
    pub asn: Asn,
    /// Its address.
    pub address: IpAddr,
    /// What it is told, in words; `None`: nothing.
    pub told: Option<String>,
    /// Why it is told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What an action means: the reply to a dry run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Version of the replies.
    pub schema_version: u32,
    /// What would be done.
    pub what: String,
    /// Name of the site.
    pub site: String,
    /// Share of the service's traffic at this site that moves, per cent; not known: none.
    pub share: u8,
    /// It must be confirmed.
    pub confirm: bool,
    /// What may be unexpected.
    pub warnings: Vec<String>,
    /// What each upstream would be told, in order.
    pub upstreams: Vec<Reached>,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionView {
    /// Its number.
    pub id: u32,
    /// What it is.
    #[schemars(with = "serde_json::Value")]
    pub what: Kind,
    /// The same in words.
    pub text: String,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// Until when.
    pub until: String,
    /// How much longer, s.
    pub left_s: u64,
    /// What upstreams are told now.
    pub upstreams: Vec<Reached>,
}

/// Reply to `act` (with the action) and to `actions` (with all).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionList {
    /// Version of the replies.
    pub schema_version: u32,
    /// What may be unexpected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The actions, oldest first.
    pub actions: Vec<ActionView>,
    /// What whoever asked should know all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A network that sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SenderView {
    /// Its /24 or /48.
    #[schemars(with = "String")]
    pub prefix: Prefix,
    /// Packets each second.
    pub packets_per_s: f64,
    /// Origin AS of the longest route to it that an upstream sent; `None`: no such route is kept.
    #[schemars(with = "Option<u32>")]
    pub asn: Option<Asn>,
}

/// Traffic at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficView {
    /// Packets each second to the service addresses.
    pub packets_per_s: f64,
    /// Open TCP connections to them; `None`: not known.
    pub connections: Option<u64>,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HookView {
    /// With success.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A drain, under way or the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DrainView {
    /// Version of the replies.
    pub schema_version: u32,
    /// Name of the site.
    pub site: String,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Where it is.
    #[schemars(with = "String")]
    pub stage: Stage,
    /// When it began.
    pub began: String,
    /// How long it has lasted, or took, s.
    pub lasted_s: f64,
    /// How long it has been in this stage, s.
    pub stage_s: f64,
    /// At the latest after so many seconds in `leaving` it withdraws.
    pub within_s: f64,
    /// Traffic before anything was changed.
    pub before: Option<TrafficView>,
    /// Traffic of the last sample.
    pub now: Option<TrafficView>,
    /// Whether the traffic is gone; `None`: packets cannot be counted, or it is too early to tell.
    pub gone: Option<bool>,
    /// How long after its begin the traffic was gone, s.
    pub gone_after_s: Option<f64>,
    /// Who sent in the last samples, heaviest first.
    pub senders: Vec<SenderView>,
    /// With `[sessions]`: what becomes of connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<DrainSessions>,
    /// Why packets cannot be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted: Option<String>,
    /// How the hook ended; absent: there is none, or it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookView>,
    /// What whoever asked should know all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What becomes of connections while a site with `[sessions]` is drained. Packets are those since the drain began, but for `anew`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DrainSessions {
    /// Who takes new connections now; absent: nobody, no other site is up, or it is not time for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Who was asked for; absent: the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// Packets that begin a connection, handed over.
    pub handed_over: u64,
    /// The same each second, of late.
    pub handed_over_per_s: f64,
    /// Packets of connections of ours that came by way of other sites.
    pub forwarded: u64,
    /// Packets are those since the last restart of the agent, which may not see what its predecessor counted.
    pub anew: bool,
    /// Who has connections open, most first, ten at most.
    pub clients: Vec<ClientView>,
}

/// A network with open connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientView {
    /// Its /24 or /48.
    #[schemars(with = "String")]
    pub prefix: Prefix,
    /// Its open connections.
    pub connections: u64,
}

impl DrainView {
    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over | Stage::Abandoned)
    }
}
