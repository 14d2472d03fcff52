//! HTTP/2 from the client's side, no more of it than requests without a body need: a real client costs several times as much, and
//! the gateway would wait for it. Of an answer's head it understands whether its first field is the status 200 of the static table.

use super::Shared;
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const BUFFER_BYTES: usize = 256 * 1024;
/// The most that a window can be.
const WINDOW: u32 = 0x7fff_ffff;
const WINDOW_AT_FIRST: u32 = 65_535;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// The head of a connection's first request: it fills the gateway's dynamic table with what stays the same.
fn first_head() -> Vec<u8> {
    // :method GET, :scheme https and :path / of the static table, then literals with incremental indexing.
    let mut head = vec![0x82, 0x87, 0x84];
    for (name, value) in [(1, "localhost"), (58, "bench"), (19, "*/*")] {
        head.push(0x40 | name);
        text(&mut head, value);
    }
    head
}

/// The head of every further one: the same fields from the tables, the newest of the dynamic table being 62.
const HEAD: [u8; 6] = [0x82, 0x87, 0x84, 0x80 | 64, 0x80 | 63, 0x80 | 62];

/// The fields that follow the head: each time another key, or nothing.
pub fn requests(keys: &[String]) -> Vec<Vec<u8>> {
    if keys.is_empty() {
        return vec![Vec::new()];
    }
    let field = |key: &String| {
        // A literal that must not be indexed, as credentials are sent.
        let mut field = vec![0x10];
        text(&mut field, "x-api-key");
        text(&mut field, key);
        field
    };
    keys.iter().map(field).collect()
}

fn text(to: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    to.push(length);
    to.extend_from_slice(text.as_bytes());
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, parts: [&[u8]; 2]) {
    let length = u32::try_from(parts[0].len() + parts[1].len()).expect("a short frame");
    to.extend_from_slice(&length.to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(parts[0]);
    to.extend_from_slice(parts[1]);
}

/// What a connection is about.
struct Connection<'a> {
    shared: &'a Shared,
    requests: &'a [Vec<u8>],
    out: Vec<u8>,
    next_stream: u32,
    /// Requests that are not answered, and whether their answer's head said 200.
    waiting: Vec<(u32, bool)>,
    /// The gateway has said how it wants to be spoken to.
    is_greeted: bool,
    received: u32,
}

/// Keeps so many requests under way until the connection fails.
pub async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &[Vec<u8>],
    shared: &Shared,
    streams: usize,
) -> Result<()> {
    let mut connection = Connection {
        shared,
        requests,
        out: PREFACE.to_vec(),
        next_stream: 1,
        waiting: Vec::with_capacity(streams),
        is_greeted: false,
        received: 0,
    };
    // No pushed streams, and the largest window for each stream.
    let settings = [[0, 2, 0, 0, 0, 0], [0, 4, 0x7f, 0xff, 0xff, 0xff]].concat();
    frame(&mut connection.out, kind::SETTINGS, 0, 0, [&settings, &[]]);
    let more = (WINDOW - WINDOW_AT_FIRST).to_be_bytes();
    frame(&mut connection.out, kind::WINDOW_UPDATE, 0, 0, [&more, &[]]);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        while connection.is_greeted && connection.waiting.len() < streams {
            connection.ask();
        }
        if !connection.out.is_empty() {
            stream.write_all(&connection.out).await?;
            stream.flush().await?;
            connection.out.clear();
        }
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let mut from = 0;
        while let Some(length) = frame_length(&buffer[from..filled]) {
            if length > buffer.len() {
                return Err(Error::new(ErrorKind::InvalidData, "too long a frame"));
            }
            if from + length > filled {
                break;
            }
            connection.hear(&buffer[from..from + length])?;
            from += length;
        }
        buffer.copy_within(from..filled, 0);
        filled -= from;
    }
}

fn frame_length(bytes: &[u8]) -> Option<usize> {
    let [high, middle, low] = bytes.get(..FRAME_HEAD)?[..3].try_into().ok()?;
    Some(FRAME_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize)
}

impl Connection<'_> {
    fn ask(&mut self) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let field = &self.requests[self.shared.next(self.requests.len())];
        let flags = flag::END_STREAM | flag::END_HEADERS;
        if stream == 1 {
            frame(&mut self.out, kind::HEADERS, flags, stream, [&first_head(), field]);
        } else {
            frame(&mut self.out, kind::HEADERS, flags, stream, [&HEAD, field]);
        }
        self.waiting.push((stream, false));
    }

    fn hear(&mut self, frame_: &[u8]) -> Result<()> {
        let (head, body) = frame_.split_at(FRAME_HEAD);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
        match kind {
            kind::DATA => {
                self.received += u32::try_from(body.len()).expect("a frame is short");
                if self.received > WINDOW / 2 {
                    frame(&mut self.out, kind::WINDOW_UPDATE, 0, 0, [&self.received.to_be_bytes(), &[]]);
                    self.received = 0;
                }
            }
            kind::HEADERS => {
                let ok = says_200(body, flags);
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.0 == stream) {
                    waiting.1 |= ok;
                }
            }
            kind::SETTINGS if flags & flag::ACK == 0 => {
                let shrinks = |setting: &[u8]| setting[..2] == [0, 1] && setting[2..] < [0, 0, 0x10, 0][..];
                if body.chunks_exact(6).any(shrinks) {
                    return Err(Error::new(ErrorKind::Unsupported, "a dynamic table of less than 4096 bytes"));
                }
                frame(&mut self.out, kind::SETTINGS, flag::ACK, 0, [&[], &[]]);
                if !self.is_greeted {
                    self.is_greeted = true;
                    self.shared.opened();
                }
            }
            kind::PING if flags & flag::ACK == 0 => frame(&mut self.out, kind::PING, flag::ACK, 0, [body, &[]]),
            kind::GOAWAY | kind::RST_STREAM => return Err(ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS)
            && flags & flag::END_STREAM != 0
            && let Some(place) = self.waiting.iter().position(|waiting| waiting.0 == stream)
        {
            let (_, ok) = self.waiting.swap_remove(place);
            self.shared.answered(if ok { *b"200" } else { *b"000" }, None);
        }
        Ok(())
    }
}

/// Whether a head begins with the status 200 of the static table.
fn says_200(body: &[u8], flags: u8) -> bool {
    let padding = usize::from(flags & flag::PADDED != 0);
    let priority = if flags & flag::PRIORITY == 0 { 0 } else { 5 };
    // The gateway may first say that it keeps a smaller table.
    let mut fields = body.iter().skip(padding + priority).skip_while(|byte| *byte & 0xe0 == 0x20);
    fields.next() == Some(&0x88)
}
