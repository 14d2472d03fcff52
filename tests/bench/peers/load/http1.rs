//! HTTP/1.1 from the client's side: one request at a time, an answer with a length or in chunks.

use super::Shared;
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Larger than any answer of the upstream with what gateways add.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The requests, ready to be sent: one for each key, or just one.
pub fn requests(keys: &[String]) -> Vec<Vec<u8>> {
    let request = |key: &str| {
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{key}\r\n").into_bytes()
    };
    if keys.is_empty() {
        return vec![request("")];
    }
    keys.iter().map(|key| request(&format!("X-Api-Key: {key}\r\n"))).collect()
}

/// Sends requests until the connection fails or is closed.
pub async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &[Vec<u8>],
    shared: &Shared,
    lane: usize,
) -> Result<()> {
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    shared.opened();
    loop {
        let due = shared.turn(lane).await;
        stream.write_all(&requests[shared.next(requests.len())]).await?;
        stream.flush().await?;
        let (mut filled, mut head) = (0, None);
        let head = loop {
            if filled == buffer.len() {
                return Err(Error::new(ErrorKind::InvalidData, "too long an answer"));
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let seen = filled.saturating_sub(3);
            filled += count;
            if head.is_none() {
                head = end_of_head(&buffer[..filled], seen).map(|end| Head::read(&buffer[..end]));
            }
            match &head {
                Some(head) if head.is_complete(&buffer[..filled]) => break head,
                _ => {}
            }
        };
        shared.answered(head.status, due);
        if head.closes {
            return Ok(());
        }
    }
}

struct Head {
    status: [u8; 3],
    bytes: usize,
    /// Of the body; none where it comes in chunks.
    length: Option<usize>,
    closes: bool,
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let mut head = Self { status: *b"000", bytes: bytes.len(), length: None, closes: false };
        head.status.copy_from_slice(&bytes[9..12]);
        for line in bytes.split(|byte| *byte == b'\n') {
            // By their length first: most lines are none of these.
            match line.iter().position(|byte| *byte == b':') {
                Some(14) if line[..14].eq_ignore_ascii_case(b"content-length") => {
                    let digits = line[15..].trim_ascii().iter();
                    head.length = Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')));
                }
                Some(10) if line[..10].eq_ignore_ascii_case(b"connection") => {
                    head.closes = line[11..].trim_ascii().eq_ignore_ascii_case(b"close");
                }
                _ => {}
            }
        }
        head
    }

    fn is_complete(&self, answer: &[u8]) -> bool {
        match self.length {
            Some(length) => answer.len() >= self.bytes + length,
            None => answer[self.bytes..].ends_with(b"0\r\n\r\n"),
        }
    }
}

fn end_of_head(answer: &[u8], from: usize) -> Option<usize> {
    answer[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|place| from + place + 4)
}
