//! Every limit on a collection of the replicated state, with its reason. What goes over is refused, nothing is evicted
//! unless it says so. A cap never shrinks, or an older state could not be read; it grows with a feature level, or nodes
//! of two releases would disagree.

/// A million keys fit a node's memory with room to spare; beyond that, tokens are the better credential.
pub const KEYS_MAX: usize = 2_000_000;
/// More callers than keys make no sense.
pub const CONSUMERS_MAX: usize = 1_000_000;
/// Routing is flat to here; a file beyond it could not be read by people.
pub const DOCUMENTS_PER_KIND_MAX: usize = 50_000;
/// A policy or route is written by hand; this bounds a log entry.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Bounds the time that one `apply` takes.
pub const CHANGES_PER_APPLY_MAX: usize = 20_000;
/// Bounds a log entry (together with the caps on documents).
pub const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bounds a log entry.
pub const KEYS_PER_IMPORT_MAX: usize = 10_000;
/// People and programs, not a directory service.
pub const OPERATORS_MAX: usize = 10_000;
/// Beyond it the leader's sessions would crowd out its own work.
pub const MEMBERS_MAX: usize = 100;
/// Tokens are made one at a time, by hand.
pub const JOIN_TOKENS_MAX: usize = 1_000;
/// A rotation has two at a time; a third leaves room for one that went wrong.
pub const AUTHORITIES_MAX: usize = 4;
/// Roles, scopes or attributes of one thing.
pub const LABELS_MAX: usize = 64;
/// Bytes of one attribute or label.
pub const LABEL_BYTES_MAX: usize = 1024;
/// Bytes of an address, zone or version of a member.
pub const MEMBER_TEXT_BYTES_MAX: usize = 256;
/// Bytes of a certificate in PEM.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// The most that `audit_entries_max` may ask for.
pub const AUDIT_ENTRIES_MAX: u64 = 1_000_000;
/// Bytes of an audit entry's subject; longer is cut.
pub const AUDIT_SUBJECT_BYTES_MAX: usize = 512;
/// How long a request id is remembered; an older one is refused.
pub const REQUEST_AGE_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// How far ahead of the cluster's clock a request id may be: nodes agree better than this.
pub const REQUEST_AHEAD_MAX_MS: u64 = 60 * 60 * 1000;
/// Remembered requests; when it is reached, new admin writes are refused until some are a day old.
pub const REQUESTS_MAX: usize = 4_000_000;
/// Of those, how many are kept free for what nodes ask on behalf of the cluster: a flood of admin writes must not stop
/// a member from leaving.
pub const REQUESTS_RESERVED: usize = 10_000;
/// An ended join token is kept this long, so that who shows it learns that it ended.
pub const JOIN_TOKEN_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// The most tokens of a limit's period, burst or quota, and how long a period may be. Together they keep every product
/// within 128 bits: a full bucket has `burst·period` parts, 2.7·10^24, and taking it over to another period squares the
/// period.
pub const LIMIT_TOKENS_MAX: u64 = 1_000_000_000_000;
/// See [`LIMIT_TOKENS_MAX`]; a month of 31 days.
pub const LIMIT_PERIOD_MAX_US: u64 = 31 * 24 * 60 * 60 * 1_000_000;
/// Buckets that are not full, of all limits: about what a node's memory bears beside its keys. When it is reached, a want
/// for another one is answered as scarce for [`NO_ROOM_DUE_US`].
pub const BUCKETS_MAX: usize = 4_000_000;
/// When to ask again for a bucket that there is no room for, or whose limit does not exist.
pub const NO_ROOM_DUE_US: u64 = 1_000_000;
/// Requests of nodes in one entry: more than there are members. What goes over is answered with nothing.
pub const ACQUIRES_PER_ENTRY_MAX: usize = 1_024;
/// Wants of one request of a node: together with the next three it bounds the time that one takes. What goes over is not
/// looked at, and asked again by the node.
pub const WANTS_PER_ACQUIRE_MAX: usize = 16_384;
/// Limits of one request; a want with more is not looked at.
pub const PARTS_PER_WANT_MAX: usize = 8;
/// Reports in one request of a node. They are cumulative: what goes over is said again.
pub const REPORTS_PER_ACQUIRE_MAX: usize = 32_768;
/// Bytes of a bucket's subject; a longer one is not looked at.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Requests that one want may say are waiting: no node has room for more.
pub const WAITING_MAX: u64 = 1_000_000;
/// Allowances of one bucket: some for each member. When it is reached nothing is granted until some are over.
pub const ALLOWANCES_PER_BUCKET_MAX: usize = 1_024;
/// Expired allowances of a quota that are remembered until the window ends: their holders have crashed, or will close
/// them soon. Of the oldest beyond it, what was left stays spent.
pub const EXPIRED_ALLOWANCES_MAX: usize = 64;
/// The longest that an allowance may last for its holder, and the longest margin after it: beyond that, a node that dies
/// would take its tokens along for too long.
pub const TERMS_MAX_US: u64 = 60_000_000;
/// How many buckets one entry looks at when more than half of [`BUCKETS_MAX`] are there.
pub const CROWDED_SWEEP_PER_ENTRY_MAX: usize = 1_024;
/// How many old audit entries or requests a new one pushes out: two, so that a backlog shrinks.
pub const PUSHED_OUT_MAX: usize = 2;
/// How many ended things (request ids, join tokens) one entry sweeps away, so that no entry is slow.
pub const SWEEP_PER_ENTRY_MAX: usize = 64;
