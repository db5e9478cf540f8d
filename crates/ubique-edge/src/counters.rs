//! What the programs counted: one number for each decision.

macro_rules! counters {
    ($($name:ident $word:literal $help:literal,)*) => {
        /// A decision.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter {
            $(#[doc = $help] $name,)*
        }

        impl Counter {
            /// All, in the order of `enum counter` in `bpf/config.h`.
            pub const ALL: &[Counter] = &[$(Counter::$name),*];

            /// As metrics and status name it.
            pub fn word(self) -> &'static str {
                match self {
                    $(Counter::$name => $word,)*
                }
            }

            /// In words.
            pub fn help(self) -> &'static str {
                match self {
                    $(Counter::$name => $help,)*
                }
            }
        }
    };
}

counters! {
    LocalTimestamp "local_timestamp" "TCP, ours by its timestamp",
    LocalSocket "local_socket" "TCP, ours by a socket",
    LocalSequence "local_sequence" "TCP, ours by its sequence number",
    LocalId "local_id" "QUIC, ours by its identifier",
    Syn "syn" "SYNs that arrived",
    SynTimestamps "syn_timestamps" "SYNs that offered timestamps",
    SynCookie "syn_cookie" "SYNs answered by a cookie",
    SynKernel "syn_kernel" "SYNs left to the kernel where cookies are answered",
    CookieAccepted "cookie_accepted" "Cookies that came back",
    CookieRefused "cookie_refused" "Cookies of ours that the kernel refused",
    ForwardTimestamp "forward_timestamp" "Sent on by timestamp",
    ForwardSequence "forward_sequence" "Sent on by sequence number",
    ForwardCache "forward_cache" "Sent on since its owner said so before",
    ForwardId "forward_id" "Sent on by connection identifier",
    ForwardProbe "forward_probe" "Sent on to ask who owns it",
    ForwardNew "forward_new" "New, handed over while we drain",
    ForwardIcmp "forward_icmp" "Errors of the path (too big) sent on",
    ForwardReply "forward_reply" "Replies through another site",
    OwnerDown "owner_down" "Of a site that is down: the kernel resets it",
    NoRoute "no_route" "Dropped: the way to the owner is not known",
    TooBig "too_big" "Dropped: too long for the way to the owner",
    ProbeLimited "probe_limited" "Dropped: too many to ask for",
    Unowned "unowned" "Nobody's: the kernel decides",
    QuicNew "quic_new" "QUIC, new or of an identifier of nobody",
    Fragment "fragment" "Fragments, left to the kernel",
    ShimData "shim_data" "Ours, from another site",
    ShimProbe "shim_probe" "Asked about",
    ShimProbeMine "shim_probe_mine" "Asked about, and ours",
    ShimNew "shim_new" "New, from a site that drains",
    ShimMine "shim_mine" "Answers to what we asked",
    ShimReply "shim_reply" "Replies of another site sent on",
    ShimAlive "shim_alive" "Sites that asked whether we are here",
    ShimForged "shim_forged" "Shims with a wrong tag or time, or for another site",
    ShimStranger "shim_stranger" "Shims from an address that is no site",
    ShimBudget "shim_budget" "Dropped: over the budget of its site",
    ShimMalformed "shim_malformed" "Shims of a wrong form, or with no such packet behind them",
}

/// Packets of each decision since the programs were first loaded, all processors together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(pub(crate) Vec<u64>);

impl std::ops::Index<Counter> for Counters {
    type Output = u64;

    fn index(&self, counter: Counter) -> &u64 {
        &self.0[counter as usize]
    }
}

impl Counters {
    /// Those that are not 0, in order.
    pub fn seen(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.iter().map(|counter| (*counter, self[*counter])).filter(|(_, count)| *count > 0)
    }
}
