//! A socket that is written to in one piece wherever a message is short. Most are: a head and a kilobyte. For those, what
//! the kernel does for `writev` beyond `send` costs more than copying does; what is longer is not copied.

use smallvec::SmallVec;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to so much is copied: two pages of a head and its body.
const COPIED_BYTES_MAX: usize = 4096;

pub(crate) struct Gathered<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        if let [alone] = slices {
            return stream.poll_write(cx, alone);
        }
        if slices.iter().map(|slice| slice.len()).fold(0, usize::saturating_add) > COPIED_BYTES_MAX {
            return stream.poll_write_vectored(cx, slices);
        }
        let mut whole = SmallVec::<[u8; COPIED_BYTES_MAX]>::new();
        for slice in slices {
            whole.extend_from_slice(slice);
        }
        stream.poll_write(cx, &whole)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;
    use proptest::prelude::*;

    /// Takes so much at a time, and knows in how many pieces it was offered.
    #[derive(Default)]
    struct Taker {
        room: usize,
        taken: Vec<u8>,
        most_slices: usize,
    }

    impl AsyncWrite for Taker {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.most_slices = self.most_slices.max(slices.len());
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).take(self.room).collect();
            self.taken.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn what_is_said_to_be_written_was(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6),
            room in 1..9000_usize,
        ) {
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let whole = pieces.concat();
            let mut gathered = Gathered(Taker { room, ..Taker::default() });
            let waker = noop_waker();
            let written = Pin::new(&mut gathered).poll_write_vectored(&mut Context::from_waker(&waker), &slices);
            let Poll::Ready(Ok(written)) = written else { panic!("{written:?}") };
            prop_assert_eq!(written, whole.len().min(room));
            prop_assert_eq!(&gathered.0.taken, &whole[..written]);
            prop_assert!(gathered.0.most_slices <= 1 || whole.len() > COPIED_BYTES_MAX);
        }
    }
}
