//! The bytes of a connection on their way to the parser and back: counted, so that the connection learns whether
//! anything moves, and judged, so that the parser sees only what can be read in one way. How they are judged is decided
//! in `http1`; what HTTP/2 may cost us in `http2`.
//!
//! A head that is not good never reaches the parser. In its place comes a small one that is, with its request line as far
//! as that was good, and the connection knows that it stands for a refusal: so a bad head is answered, logged and counted
//! like every other refusal. Nothing behind it is looked at.

use super::{
    PREFACE,
    connection::{Connection, Protocol},
    http1::{Bounds, Messages, Place, Wrong},
    http2::{Flood, Frames},
};
use metrics::counter;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How much is read at a time while a head is not whole.
const PIECE_BYTES: usize = 4096;
/// Bytes that a refused client may go on sending before it is cut off. Without reading them its system would throw away
/// our answer together with what it still has to send.
const DISCARDED_BYTES_MAX: usize = 512 * 1024;
/// How long it may do so after the answer.
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct Wire<S> {
    stream: S,
    connection: Arc<Connection>,
    judge: Judge,
    /// What has come and has not been passed on: whatever may be, and then the beginning of a head.
    held: Vec<u8>,
    /// So many bytes of it may be passed on.
    passable: usize,
    end: Option<End>,
    discarded: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

/// Who looks at what comes.
enum Judge {
    Http1(Messages),
    Http2(Frames),
}

/// How it ended with what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A head was refused: the parser has something to answer, and nothing more to read.
    Refused,
    /// A body broke off: the parser finds the end of the stream there.
    Broken,
    /// There was too much of what asks for nothing: the connection fails.
    Flooded,
}

impl<S> Wire<S> {
    /// `prefix` has been read already.
    pub(super) fn new(stream: S, prefix: Vec<u8>, protocol: Protocol, connection: Arc<Connection>) -> Self {
        let caps = &connection.worker.shared.settings.caps;
        let bounds = Bounds { head_bytes_max: caps.header_bytes_max, fields_max: caps.header_count_max };
        let judge = match protocol {
            Protocol::Http1 => Judge::Http1(Messages::new(bounds)),
            Protocol::Http2 => Judge::Http2(Frames::new(PREFACE.len())),
        };
        let mut wire =
            Self { stream, connection, judge, held: prefix, passable: 0, end: None, discarded: 0, linger: None };
        wire.judge_held();
        wire
    }

    /// Gives bytes back, to be read again.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        // They have been looked at, and come before whatever else is held.
        self.held.splice(..0, bytes.iter().copied());
        self.passable += bytes.len();
    }

    fn wrote(&mut self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(result) => {
                if let (Judge::Http2(frames), Ok(count)) = (&mut self.judge, result) {
                    frames.sent(*count);
                }
                self.connection.write_waits(false);
                self.connection.moved(false);
            }
            Poll::Pending => self.connection.write_waits(true),
        }
    }

    /// Looks at what is held.
    fn judge_held(&mut self) {
        let messages = match &mut self.judge {
            Judge::Http1(messages) => messages,
            Judge::Http2(frames) => {
                self.passable = self.held.len();
                let counted = frames.count(&self.held, || self.connection.worker.shared.clock.boot_us());
                return self.flooded(counted);
            }
        };
        let scanned = messages.scan(&self.held);
        self.passable = scanned.passed;
        if let Some(wrong) = scanned.wrong {
            let behind = self.held.split_off(self.passable);
            self.refuse(wrong, &behind);
        }
    }

    /// Looks at what came into the reader's own room, where most of it may stay: only the beginning of a head is taken
    /// back out.
    fn judge(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let come = buf.filled().get(before..).unwrap_or_default();
        let messages = match &mut self.judge {
            Judge::Http1(messages) => messages,
            Judge::Http2(frames) => {
                let counted = frames.count(come, || self.connection.worker.shared.clock.boot_us());
                return self.flooded(counted);
            }
        };
        let scanned = messages.scan(come);
        if scanned.passed == come.len() && scanned.wrong.is_none() {
            return;
        }
        let behind = come.get(scanned.passed..).unwrap_or_default().to_vec();
        buf.set_filled(before + scanned.passed);
        match scanned.wrong {
            Some(wrong) => self.refuse(wrong, &behind),
            None => self.held = behind,
        }
    }

    fn flooded(&mut self, counted: Result<(), Flood>) {
        if counted.is_err() {
            counter!("quorate_http2_floods_total").increment(1);
            self.end = Some(End::Flooded);
        }
    }

    /// What is wrong begins with `behind`, and nothing of that is passed on.
    fn refuse(&mut self, wrong: Wrong, behind: &[u8]) {
        self.connection.refuse(wrong);
        match wrong.place {
            Place::Body => self.end = Some(End::Broken),
            Place::Head { request_line } => {
                let line = behind.get(..request_line).filter(|line| !line.is_empty());
                self.held.extend_from_slice(line.unwrap_or(b"- * HTTP/1.1\r\n"));
                self.held.extend_from_slice(b"connection: close\r\n\r\n");
                self.end = Some(End::Refused);
            }
        }
        self.passable = self.held.len();
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads more of what is held. False at the end of the stream.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.held.len();
        self.held.resize(before + PIECE_BYTES, 0);
        let mut room = ReadBuf::new(self.held.get_mut(before..).unwrap_or_default());
        let result = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.held.truncate(before + count);
        ready!(result)?;
        if count > 0 {
            self.connection.moved(true);
            self.judge_held();
        }
        Poll::Ready(Ok(count > 0))
    }

    /// Reads what a refused client still sends, and forgets it. Ready at its end, or when it was too much.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [0; PIECE_BYTES];
        while self.discarded < DISCARDED_BYTES_MAX {
            let mut room = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)) {
                Ok(()) if !room.filled().is_empty() => self.discarded += room.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.passable > 0 {
                let count = this.passable.min(buf.remaining());
                buf.put_slice(this.held.get(..count).unwrap_or_default());
                this.passable -= count;
                if count == this.held.len() {
                    // The room goes with it: most connections need none.
                    this.held = Vec::new();
                } else {
                    this.held.drain(..count);
                }
                this.connection.moved(true);
                return Poll::Ready(Ok(()));
            }
            match this.end {
                // The parser takes the end of the stream for a client that has gone, and would not answer.
                Some(End::Refused) => {
                    let _ = this.poll_discard(cx);
                    return Poll::Pending;
                }
                Some(End::Broken) => return Poll::Ready(Ok(())),
                Some(End::Flooded) => {
                    return Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")));
                }
                None => {}
            }
            if !this.held.is_empty() {
                if !ready!(this.poll_more(cx))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            this.connection.moved(true);
            this.judge(buf, before);
            if buf.filled().len() > before && this.end != Some(End::Flooded) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS may have taken what the socket has not.
        self.connection.write_waits(result.is_pending());
        result
    }

    /// A connection that is refused lingers, until its client has had time to take the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.end, Some(End::Refused | End::Broken)) {
            return Pin::new(&mut this.stream).poll_shutdown(cx);
        }
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.linger.insert(Box::pin(sleep(LINGER)))
            }
        };
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.poll_discard(cx).map(Ok)
    }
}
