//! The table of diagnostic codes: what each means, independent of the place it was found.
//!
//! A code never changes its meaning; a retired number is not given out again. `docs/diagnostics.md` is this table.

use super::Severity;

/// One kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `E0xxx` or `W0xxx`.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// Why it is wrong and what to do, for the manual.
    pub explanation: &'static str,
}

impl Code {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        Severity::of(self.code)
    }
}

macro_rules! codes {
    ($($name:ident $code:literal $title:literal $explanation:literal)*) => {
        $(
            #[doc = $title]
            pub const $name: Code = Code { code: $code, title: $title, explanation: $explanation };
        )*
        /// Every code, in numeric order, errors first.
        pub const CODES: &[Code] = &[$($name),*];
    };
}

codes! {
    // The file as bytes and as TOML.
    EMPTY_FILE "E0001" "empty file"
        "The file holds nothing but blanks and comments. Start from one of the examples, or print the schema with `ubique check --schema`."
    NOT_UTF8 "E0002" "not UTF-8 text"
        "TOML files are UTF-8 text. The position is the first byte that is not. Usual reasons: the file was saved in another encoding, or it is not a text file at all."
    NUL_BYTE "E0003" "NUL byte"
        "The file contains a zero byte, which no text file does: it is binary, was saved as UTF-16, or lost its content in a crash."
    FILE_TOO_LARGE "E0004" "file too large"
        "Files are limited to 1 MiB, far more than any real one needs, so that a wrong file name cannot exhaust memory."
    SYNTAX "E0010" "not valid TOML"
        "The text breaks the grammar of TOML 1.0 (https://toml.io). Other mistakes are still reported where the rest of the file allows it."
    DUPLICATE_KEY "E0011" "key given twice"
        "A key or table appears twice in the same table. TOML forbids that, since it would be unclear which one counts."
    TOO_DEEP "E0012" "nested too deeply"
        "Arrays or tables are nested deeper than the parser follows. No key of ubique nests deeper than four levels."
    TOO_MANY_FINDINGS "E0013" "too many findings"
        "Reporting stopped after the limit. Mend the ones shown first."
    // Keys and types.
    UNKNOWN_KEY "E0101" "unknown key"
        "Keys that ubique does not know are errors, because a misspelt key that is silently ignored is a setting that silently has no effect."
    MISSING_KEY "E0102" "missing key"
        "A key without a default is absent. The position is the table that lacks it."
    WRONG_TYPE "E0103" "wrong type of value"
        "The value has another TOML type than the key needs, e.g. a number where a string is expected."
    NOT_IN_VERSION "E0104" "not available in this version"
        "The key or value is part of the design of ubique, but this version cannot carry it out. It is refused rather than ignored."
    KEY_OF_OTHER_KIND "E0105" "key of another kind"
        "The key exists, but not for this kind of check or this action."
    TOO_MANY "E0106" "too many entries"
        "Each list has a limit, so that every memory use and every run time has one. The limits are far above what real services use."
    EMPTY_LIST "E0107" "empty list"
        "The list needs at least one entry."
    // Values.
    BAD_NAME "E0201" "invalid name"
        "Names appear in metrics, socket paths and log lines: only the characters a-z, 0-9 and `-`, at most 32 of them, not starting or ending with `-`."
    BAD_TEXT "E0202" "unusable text"
        "The text is empty, too long, or contains control characters."
    BAD_CHOICE "E0203" "unknown value"
        "The key accepts a fixed set of words; this is none of them."
    BAD_DURATION "E0204" "invalid duration"
        "Durations are one number with a unit: `ns`, `us`, `ms`, `s`, `m` or `h`, e.g. \"100ms\" or \"1.5s\". A number without unit is refused, \
         because seconds and milliseconds are too easy to confuse."
    BAD_RATE "E0205" "invalid rate"
        "Bit rates are written like \"40Gbit/s\" (decimal prefixes k, M, G, T), query and packet rates like \"1.2M/s\"."
    BAD_FRACTION "E0206" "invalid percentage"
        "Probabilities are percentages in quotes, from \"0%\" to \"100%\", e.g. \"0.1%\"."
    OUT_OF_RANGE "E0207" "value out of range"
        "The value has the right form but lies outside the range that makes sense for this key."
    BAD_ADDRESS "E0208" "invalid IP address"
        "An IPv4 or IPv6 address literal is needed. Names are not looked up: an anycast node must not depend on the DNS it may be serving."
    BAD_ENDPOINT "E0209" "invalid address and port"
        "An address with a port is needed: \"198.51.100.53:53\" or \"[2001:db8:53::53]:53\"."
    BAD_PREFIX "E0210" "invalid prefix"
        "A prefix in CIDR form is needed: \"198.51.100.0/24\" or \"2001:db8:53::/48\"."
    HOST_BITS "E0211" "prefix with host bits"
        "Bits right of the prefix length are set, so the address or the length is not what was meant. BGP announces only the bits left of it."
    NOT_ANNOUNCEABLE "E0212" "prefix that cannot be announced"
        "Default routes, multicast, loopback and link-local space and far too short prefixes are never an anycast service's own."
    BAD_ASN "E0213" "invalid AS number"
        "AS numbers are integers from 1 to 4294967294; 0 (RFC 7607), 23456 (RFC 6793), 65535 and 4294967295 (RFC 7300) are reserved by the protocol and no router accepts a session with them."
    BAD_COMMUNITY "E0214" "invalid community"
        "Communities (RFC 1997) are two numbers up to 65535, \"64500:100\", one of the words no-export, no-advertise, no-peer, blackhole and \
          graceful-shutdown, or a request a network is known to understand, \
         \"cogent:no-peers\" (docs/communities.md); \
         large communities (RFC 8092) are three numbers up to 4294967295, \"64500:1:2\"; extended communities (RFC 4360) are \"rt:64500:1\", \"ro:64500:1\" or 16 hexadecimal digits after 0x."
    UNKNOWN_LOCATION "E0215" "unknown location"
        "Locations are \"City, CC\" with an ISO country code, a city of at least 100,000 people or a capital, the IATA code of a large airport, or \
         coordinates \"52.37,4.90\". Any other place can be given by its coordinates."
    BAD_URL "E0216" "invalid URL"
        "HTTP checks take URLs like \"http://198.51.100.53:80/health\" or \"https://service/health\": an address literal, `service` or `loopback`. \
         The name the server expects goes into `host`."
    BAD_QUERY "E0217" "invalid DNS query"
        "Queries are \"NAME TYPE\" or \"NAME TYPE CLASS\": \"example.com A\", \"id.server TXT CH\"."
    PORT_ZERO "E0218" "port 0"
        "Nothing can be reached at port 0."
    BAD_SELECTOR "E0220" "invalid site selector"
        "A step names its site by \"busiest\", by the site's name, or by \"@LABEL\": the site of an earlier step."
    HOLD_TIME "E0221" "impossible hold time"
        "RFC 4271 §4.2: the hold time is either 0 or at least 3 whole seconds, and at most 65535 s."
    BAD_ROUTER_ID "E0222" "invalid router ID"
        "The BGP identifier (RFC 6286) is a non-zero number written like an IPv4 address."
    // The service as a whole.
    DUPLICATE "E0301" "duplicate"
        "Names, addresses and prefixes must be unique within their list."
    ADDRESS_OUTSIDE "E0302" "address outside the prefixes"
        "Each service address must lie in one of the announced prefixes, otherwise no client reaches it."
    FAMILY_MISMATCH "E0303" "address families differ"
        "A BGP session runs over one family, so both of its addresses are IPv4 or both are IPv6. A next hop has the family of its routes."
    NOTHING_TO_ANNOUNCE "E0304" "nothing to announce to this upstream"
        "A session announces the prefixes of its `families`, by default those of its addresses' family. The service has none of them."
    TIMEOUT_ABOVE_EVERY "E0305" "timeout longer than the interval"
        "Polls of one check do not overlap: a poll must be over before the next one starts."
    OWN_ASN "E0306" "own AS as an external neighbour"
        "A neighbour in the service's own AS is `internal`; any other relation needs another AS number."
    NO_SITE "E0307" "no site"
        "A service without a site announces nothing."
    NO_UPSTREAM "E0308" "site without upstream"
        "A site without a BGP neighbour announces nothing."
    SERVICE_ADDRESS_IN_SESSION "E0309" "service address used for a BGP session"
        "Packets to an anycast address reach the nearest site, not this one: sessions need addresses that belong to one machine. They would also break when the address is removed."
    BAD_SESSION_ADDRESS "E0310" "unusable session address"
        "Unspecified, multicast and broadcast addresses are no machine's; IPv6 link-local addresses need `interface`."
    NEED_ONE_OF "E0311" "exactly one of two keys"
        "The check needs one of the two keys, and only one, to know what to look at."
    RESERVED_NAME "E0312" "reserved name"
        "The word means something else in scenario files."
    CONFLICTING_KEYS "E0313" "keys that exclude each other"
        "The two keys ask for opposite things of one session; the finding names them."
    ROLE_MISMATCH "E0314" "role that does not fit the relation"
        "`role` is what we are to the neighbour (RFC 9234): `customer` of a transit, `peer` of a peer, `rs-client` of a route server. \
         A neighbour that sees another role ends the session."
    WITHOUT_EFFECT "E0315" "key without effect"
        "The key does nothing together with the rest of this table; a setting that silently has no effect is refused."
    NOT_ON_THIS_MACHINE "E0316" "not possible on this machine"
        "The kernel of this machine lacks something the file asks for. `ubique check --here` looks, and `ubique run` refuses to start: \
         a session that should be authenticated must not come up without."
    PREFIX_OUTSIDE "E0317" "longer prefix outside the service's"
        "What is announced in addition lies within one of the service's prefixes and is longer: a site never announces what is not its own."
    SHED_WITHDRAWS_ALL "E0318" "load would withdraw a site"
        "Load is not failure: clients that a withdrawn site loses overload the next one, and so on. A site that sheds load keeps at least one upstream."
    NO_FLAP_BUDGET "E0319" "no budget for an announcement"
        "An announcement needs room for one more change and one more withdrawal below `suppress`; with less the site would never be announced."
    API_ON_SERVICE_ADDRESS "E0330" "HTTPS API on a service address"
        "Requests to an anycast address reach the nearest site: `POST /v1/drain` would drain a site that was not meant. The API listens on an address of one machine."
    UNKNOWN_GROUP "E0331" "group without counterpart"
        "A check names a `[[group]]` that is not there, or a group has no check: what the site is fit for would not be known."
    IMPOSSIBLE_THRESHOLD "E0332" "threshold that cannot work"
        "A group's threshold must be reachable, and `degraded` needs no more than `healthy`; the two thresholds of a load leave a gap between them."
    BAD_UNICAST "E0333" "unusable unicast address"
        "`unicast` of a site names addresses of that machine alone, at which the other sites reach it: one of each family at most, and no unspecified, \
         loopback, link-local, multicast or broadcast address."
    UNICAST_IN_PREFIX "E0334" "unicast address within the service's prefixes"
        "Packets to an anycast address reach the nearest site. What a site passes on to another one's unicast address must reach that site wherever it is sent from."
    NO_COMMON_FAMILY "E0335" "sites without a common address family"
        "With `[sessions]` any site passes on packets to any other, so both have a unicast address of the same family."
    SITE_NUMBER_TAKEN "E0336" "two sites with one number"
        "With `[sessions]` each packet carries the number of the site that has its connection. Unless `number` is written, it is the CRC-32 of the site's name, modulo 64, so that a \
         new site changes no other one's; with some ten sites it is likely that two of them meet. Write the proposed `number` at the newer one: where it changes, \
         connections that are open survive no route change."
    // Scenarios and Internets.
    UNKNOWN_LABEL "E0401" "unknown step label"
        "\"@LABEL\" refers to an earlier step that has a site."
    UNKNOWN_SITE "E0402" "unknown site"
        "The service file has no site of this name."
    UNKNOWN_VANTAGE "E0403" "unknown vantage point"
        "The Internet file has no vantage point of this name."
    NO_STEP "E0404" "no step"
        "A scenario without a step does nothing."
    EXPECTATION_WITHOUT_SITE "E0405" "expectation needs a site"
        "Outages and evacuation are measured for the site of the step, so the action must have one."
    EXPECTATION_WITHOUT_SESSIONS "E0406" "expectation needs sessions"
        "What becomes of sessions is known where there are some: `[[session]]` of the scenario says which."
    NOTHING_TO_CONTROL "E0407" "control run without a difference"
        "The control run plays the scenario without the data plane. A service without `[sessions]` has none, so that both runs would be the same."
    UNKNOWN_ASN "E0501" "unknown network"
        "Links, exchange points and vantage points refer to networks by the AS number of an `[[as]]` entry."
    SELF_LINK "E0502" "link of a network with itself"
        "A link joins two different networks."
    PROVIDER_CYCLE "E0503" "provider cycle"
        "No network may be its own provider, directly or through others: Gao-Rexford routing needs an acyclic customer-provider graph to converge."
    DISCONNECTED "E0504" "network that cannot be reached"
        "Not every network is joined to the others by links, so some vantage points could never reach the service."
    NO_NETWORK "E0505" "no network"
        "An Internet needs at least one `[[as]]` entry."
    // Warnings.
    NO_CHECK "W0001" "no check"
        "Without a check the site is announced whatever its service does, even when nothing answers any more."
    LONG_PREFIX "W0002" "prefix too long for the Internet"
        "Most networks filter IPv4 prefixes longer than /24 and IPv6 prefixes longer than /48; announced to the public Internet, such a prefix reaches few of them."
    OVERLAPPING_PREFIXES "W0003" "overlapping prefixes"
        "Every site announces both, and routers always follow the longer one: the shorter one attracts no traffic for these addresses."
    PREFIX_WITHOUT_ADDRESS "W0004" "prefix without service address"
        "The prefix attracts traffic, but no service address lies in it."
    PRIVATE_ASN "W0005" "private AS number"
        "Private AS numbers (RFC 6996) are filtered on the public Internet."
    UNASSIGNED_ASN "W0006" "AS number reserved by IANA"
        "The number is reserved by IANA and assigned to nobody."
    PRIVATE_PREFIX "W0007" "private address space"
        "Private space (RFC 1918, RFC 4193, RFC 6598) works inside one organisation and is filtered on the public Internet."
    FAMILY_NOT_ANNOUNCED "W0008" "site that does not announce every family"
        "The service has prefixes of a family for which this site has no upstream: it does not announce them."
    NO_HOLD_TIMER "W0009" "hold time 0"
        "With hold time 0 there are no keepalives: an upstream never notices that this machine froze or lost its link, and keeps sending clients to it."
    GRACEFUL_RESTART "W0010" "graceful restart on a health-injecting site"
        "An upstream that takes part in graceful restart (RFC 4724) keeps the routes of a site that died for the restart time: measured, 120 s of lost queries with BIRD and FRR, \
         where it is 5 ms and 80 ms without. Withdrawals of an unhealthy site and the end of the agent (a hard reset, RFC 8538) are not delayed."
    BFD_TOO_FAST "W0020" "BFD that may end a healthy session"
        "With packets more often than every 50 ms, or fewer than three in a row to lose, a moment's delay or a single lost packet looks like a lost neighbour. Routes then move without need."
    ONE_SITE "W0030" "sessions with one site"
        "`[sessions]` has packets that reach another site passed on to the one that has their connection. With one site there is no other."
}
