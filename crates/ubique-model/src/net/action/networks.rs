//! The table: facts with their sources, nothing from memory.

use super::{Code, Network, Request, Towards};
use crate::net::Asn;

const fn request(word: &'static str, high: u16, low: u16, effect: &'static str) -> Request {
    Request { word, community: (high, low), effect }
}

const fn towards(word: &'static str, code: Code, effect: &'static str) -> Towards {
    Towards { word, code, effect }
}

/// The collection of communities behind the looking glass of NLNOG, at the commit read.
const NLNOG: &str = "github.com/NLNOG/lg.ring.nlnog.net, communities, commit edfbc02";
const NLNOG_READ: &str = "20 March 2026";

/// Networks by their number in the second part of Sparkle's communities.
const SPARKLE_TOWARDS: &[(u16, u32)] = &[
    (1, 701),
    (2, 6453),
    (3, 1239),
    (5, 3320),
    (6, 5511),
    (7, 1299),
    (8, 12956),
    (9, 3356),
    (12, 174),
    (13, 7018),
    (14, 1257),
    (16, 3257),
    (17, 1273),
    (18, 2914),
    (21, 6461),
    (22, 4134),
    (23, 4837),
    (24, 7922),
    (25, 3491),
    (36, 4637),
    (37, 6830),
    (38, 6939),
];

/// Networks whose action communities are known, by AS.
pub const NETWORKS: &[Network] = &[
    Network {
        asn: Asn(174),
        word: "cogent",
        name: "Cogent",
        source: "onestep.net/communities/as174, from Cogent's User Guide V5",
        as_of: "read November 2026",
        requests: &[
            request("no-peers", 174, 991, "not sent to peers"),
            request("no-export", 174, 990, "sent to neither customers nor peers"),
            request("no-peers-north-america", 174, 971, "not sent to peers in North America"),
            request("no-peers-europe", 174, 981, "not sent to peers in Europe"),
            request("no-north-america", 174, 970, "not accepted in North America"),
            request("no-europe", 174, 980, "not accepted in Europe"),
            request("prepend-1", 174, 3001, "174 prepended once towards all peers"),
            request("prepend-2", 174, 3002, "174 prepended twice towards all peers"),
            request("prepend-3", 174, 3003, "174 prepended three times towards all peers"),
        ],
        towards: &[],
    },
    Network {
        asn: Asn(1299),
        word: "arelion",
        name: "Arelion",
        source: NLNOG,
        as_of: NLNOG_READ,
        requests: &[
            request("last-resort", 1299, 50, "lowest local preference there is"),
            request("as-peer", 1299, 150, "local preference of a peer's route"),
            request("no-peers-europe", 1299, 2009, "not sent to peers in Europe"),
            request("no-peers-north-america", 1299, 5009, "not sent to peers in North America"),
            request("no-peers-asia-pacific", 1299, 7009, "not sent to peers in Asia and the Pacific"),
            request("prepend-1-europe", 1299, 2001, "1299 prepended once towards peers in Europe"),
            request("prepend-2-europe", 1299, 2002, "1299 prepended twice towards peers in Europe"),
            request("prepend-3-europe", 1299, 2003, "1299 prepended three times towards peers in Europe"),
            request("prepend-1-north-america", 1299, 5001, "1299 prepended once towards peers in North America"),
            request("prepend-2-north-america", 1299, 5002, "1299 prepended twice towards peers in North America"),
            request("prepend-3-north-america", 1299, 5003, "1299 prepended three times towards peers in North America"),
            request("prepend-1-asia-pacific", 1299, 7001, "1299 prepended once towards peers in Asia and the Pacific"),
        ],
        towards: &[],
    },
    Network {
        asn: Asn(2914),
        word: "ntt",
        name: "NTT",
        source: "gin.ntt.net/support-center/policies-procedures/routing",
        as_of: "read November 2026",
        requests: &[
            request("blackhole", 2914, 666, "packets discarded"),
            request("fallback", 2914, 450, "local preference below peers: customer fallback"),
            request("below-peers", 2914, 460, "local preference below peers: peer backup"),
            request("as-peer", 2914, 470, "local preference of a peer's route"),
            request("backup", 2914, 480, "local preference below other customers"),
            request("prepend-1-customers", 2914, 411, "2914 prepended once towards customers"),
            request("prepend-2-customers", 2914, 412, "2914 prepended twice towards customers"),
            request("prepend-3-customers", 2914, 413, "2914 prepended three times towards customers"),
            request("prepend-1", 2914, 421, "2914 prepended once towards all peers"),
            request("prepend-2", 2914, 422, "2914 prepended twice towards all peers"),
            request("prepend-3", 2914, 423, "2914 prepended three times towards all peers"),
            request("no-peers", 2914, 429, "not sent to peers"),
            request("no-peers-beyond-region", 2914, 439, "not sent to peers outside of the region"),
        ],
        towards: &[
            towards("no", Code::High(65500), "not sent to peer N"),
            towards("prepend-1", Code::High(65501), "2914 prepended once towards peer N"),
            towards("prepend-2", Code::High(65502), "2914 prepended twice towards peer N"),
            towards("prepend-3", Code::High(65503), "2914 prepended three times towards peer N"),
        ],
    },
    Network {
        asn: Asn(3320),
        word: "dtag",
        name: "Deutsche Telekom",
        source: NLNOG,
        as_of: NLNOG_READ,
        requests: &[
            request("blackhole", 65000, 0, "packets discarded"),
            request("no-peers", 65010, 65001, "not sent to peers"),
            request("no-peers-upstreams", 65010, 65003, "sent to neither peers nor upstreams"),
            request("no-export", 65010, 65007, "sent to nobody"),
            request("prepend-2", 65012, 65001, "3320 prepended twice towards all peers"),
            request("prepend-3", 65013, 65001, "3320 prepended three times towards all peers"),
        ],
        towards: &[towards("prepend-2", Code::High(65012), "3320 prepended twice towards AS N")],
    },
    Network {
        asn: Asn(3356),
        word: "lumen",
        name: "Lumen (Level 3)",
        source: "onestep.net/communities/as7911, Level 3's table for former WilTel customers",
        as_of: "read November 2026",
        requests: &[
            request("no-peers", 65000, 0, "sent to customers, not to peers"),
            request("below-peers", 3356, 70, "local preference below peers"),
            request("backup", 3356, 90, "local preference above peers, below other customers"),
        ],
        towards: &[],
    },
    Network {
        asn: Asn(6461),
        word: "zayo",
        name: "Zayo",
        source: "onestep.net/communities/as6461",
        as_of: "read November 2026",
        requests: &[
            request("no-peers", 6461, 5000, "not sent to peers"),
            request("prepend-1", 6461, 5001, "6461 prepended once towards all peers"),
            request("prepend-2", 6461, 5002, "6461 prepended twice towards all peers"),
            request("prepend-3", 6461, 5003, "6461 prepended three times towards all peers"),
            request("no-peers-europe", 6461, 5010, "not sent to peers in Europe"),
            request("prepend-1-europe", 6461, 5011, "6461 prepended once towards peers in Europe"),
            request("prepend-2-europe", 6461, 5012, "6461 prepended twice towards peers in Europe"),
            request("prepend-3-europe", 6461, 5013, "6461 prepended three times towards peers in Europe"),
            request("last-resort", 6461, 5060, "local preference 60: transit backup"),
        ],
        towards: &[],
    },
    Network {
        asn: Asn(6762),
        word: "sparkle",
        name: "Telecom Italia Sparkle",
        source: "tisparkle.com/BGP-Community-support-for-AS6762-Customers and etabeta.noc.seabone.net/communities.html",
        as_of: "read November 2026",
        requests: &[request("blackhole", 6762, 666, "packets discarded; a /32 only")],
        towards: &[
            towards("no", Code::Listed(20_000, SPARKLE_TOWARDS), "not sent to AS N"),
            towards("prepend-1", Code::Listed(20_100, SPARKLE_TOWARDS), "6762 prepended once towards AS N"),
            towards("prepend-2", Code::Listed(20_200, SPARKLE_TOWARDS), "6762 prepended twice towards AS N"),
            towards("prepend-3", Code::Listed(20_300, SPARKLE_TOWARDS), "6762 prepended three times towards AS N"),
        ],
    },
    Network {
        asn: Asn(6939),
        word: "he",
        name: "Hurricane Electric",
        source: "he.net/adm/blackhole.html",
        as_of: "read November 2026",
        requests: &[request("blackhole", 6939, 666, "packets discarded; /24 to /32, for customers who had it enabled")],
        towards: &[],
    },
];
