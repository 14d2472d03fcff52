//! Heads of requests: refused, or one host, one path and one method, of which the upstream gets just these; and nothing in
//! their fields makes the upstream see another request, or somebody else behind it.

/// The version's parity, then method, target and fields, a line each.
pub fn run(bytes: &[u8]) {
    quorate::fuzzing::asked(bytes);
    quorate::fuzzing::forwarded(bytes);
}

/// What heads are made of.
pub const WORDS: &[&str] = &[
    "0\nGET\n/a?b\n",
    "1\nPOST\nhttp://a/b\n",
    "host:a\n",
    "connection:x-quorate-consumer, te, host\n",
    "x-quorate-consumer:root\n",
    "x_quorate_consumer:root\n",
    "x-forwarded-for:10.0.0.1\n",
    "x_forwarded-proto:x\n",
    "x-http-method-override:DELETE\n",
    "x-original-url:/admin\n",
    "content_length:3\n",
    "transfer-encoding:chunked\n",
    "x-request-id:mine\n",
    "te:trailers\n",
    "expect:x\n",
    "%2e",
    "//",
    "@",
];
