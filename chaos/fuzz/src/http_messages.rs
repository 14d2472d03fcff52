//! HTTP/1 on the wire, in any pieces: the verdict does not depend on them, and the parser behind the scanner finds the
//! very requests that the scanner let pass.

/// The first byte says how many pieces there are, and the next ones how long they are.
pub fn run(bytes: &[u8]) {
    quorate::fuzzing::messages(bytes);
}

/// What framing is made of.
pub const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    ";a=b",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
];
