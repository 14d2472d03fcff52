//! HTTP/2 on the wire, counted before the parser sees it. The parser bounds streams, resets that nobody looked at yet,
//! header lists and the frames of a header block; it does not bound frames that ask for nothing and make it work all the
//! same: pings, settings, resets of streams that had begun. They come out of a budget that grows with time and with what
//! the gateway sends, so that a client who does something with us is never near its end. Values alone: no I/O, no clock.

/// What a client may do at once.
const BUDGET_MAX: u32 = 4096;
/// What it may go on doing.
const BUDGET_PER_SECOND: u64 = 512;
/// What we send for one more. A pong or an acknowledgement is worth less than what asked for it.
const BYTES_PER_FRAME: usize = 64;
/// A reset has made us begin a request, and end it (CVE-2023-44487).
const RESET_COST: u32 = 4;
/// Length, type, flags and stream of a frame.
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// The frames of a client.
#[derive(Debug)]
pub(crate) struct Frames {
    header: [u8; HEADER_BYTES],
    /// So many bytes of it have come.
    header_bytes: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    budget: u32,
    filled_us: u64,
    /// What we sent that has not been made into budget.
    sent_bytes: usize,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flood;

impl Frames {
    /// The client's preface, of so many bytes, comes before its frames.
    pub(crate) const fn new(preface_bytes: usize) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            left: preface_bytes,
            budget: BUDGET_MAX,
            filled_us: 0,
            sent_bytes: 0,
        }
    }

    /// So much went to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        if self.budget < BUDGET_MAX {
            self.fill(u64::try_from(self.sent_bytes / BYTES_PER_FRAME).unwrap_or(u64::MAX));
        }
        self.sent_bytes %= BYTES_PER_FRAME;
    }

    /// Counts what has come. `now_us` is asked for only where it matters.
    pub(crate) fn count(&mut self, mut bytes: &[u8], now_us: impl Fn() -> u64) -> Result<(), Flood> {
        let mut cost = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            let taken = (HEADER_BYTES - self.header_bytes).min(bytes.len());
            let (come, rest) = bytes.split_at(taken);
            for (place, byte) in self.header.iter_mut().skip(self.header_bytes).zip(come) {
                *place = *byte;
            }
            self.header_bytes += taken;
            bytes = rest;
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                cost += match kind {
                    HEADERS => 0,
                    DATA => u32::from(self.left == 0 && flags & END_STREAM == 0),
                    RST_STREAM => RESET_COST,
                    _ => 1,
                };
            }
        }
        self.spend(cost, now_us)
    }

    fn spend(&mut self, cost: u32, now_us: impl Fn() -> u64) -> Result<(), Flood> {
        if cost == 0 {
            return Ok(());
        }
        if self.budget < BUDGET_MAX / 2 {
            let now_us = now_us();
            let passed_us = if self.filled_us == 0 { 0 } else { now_us.saturating_sub(self.filled_us) };
            let frames = passed_us.saturating_mul(BUDGET_PER_SECOND) / 1_000_000;
            self.fill(frames);
            if frames > 0 || self.filled_us == 0 {
                self.filled_us = now_us;
            }
        }
        self.budget = self.budget.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn fill(&mut self, frames: u64) {
        self.budget = self.budget.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX)).min(BUDGET_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length, 0xff);
        frame
    }

    /// How many of the same frame are taken in a burst.
    fn burst(frame: &[u8]) -> usize {
        let mut frames = Frames::new(0);
        (0..100_000).take_while(|_| frames.count(frame, || 1).is_ok()).count()
    }

    #[test]
    fn what_asks_for_nothing_is_bounded() {
        for (kind, flags, length, most) in [
            (2, 0, 5, 4096),
            (RST_STREAM, 0, 4, 1024),
            (4, 0, 0, 4096),
            (6, 0, 8, 4096),
            (8, 0, 4, 4096),
            (9, 0, 100, 4096),
            (0xfa, 0, 30, 4096),
            (DATA, 0, 0, 4096),
        ] {
            assert_eq!(burst(&frame(kind, flags, length)), most, "{kind}");
        }
        assert_eq!(burst(&frame(DATA, 0, 1000)), 100_000);
        assert_eq!(burst(&frame(DATA, END_STREAM, 0)), 100_000);
        assert_eq!(burst(&frame(HEADERS, 5, 20)), 100_000);
    }

    #[test]
    fn the_budget_comes_back_with_time_and_with_what_we_send() {
        let ping = frame(6, 0, 8);
        let all =
            |frames: &mut Frames, now: u64| (0..10_000).take_while(|_| frames.count(&ping, || now).is_ok()).count();
        let mut frames = Frames::new(0);
        assert_eq!(all(&mut frames, 1), 4096);
        assert_eq!(all(&mut frames, 1_000_001), 512);
        // Not by asking often.
        for now in 1_000_002..1_001_000 {
            assert_eq!(all(&mut frames, now), 0);
        }
        assert_eq!(all(&mut frames, 2_000_001), 512);
        frames.sent(63);
        assert_eq!(all(&mut frames, 2_000_001), 0);
        frames.sent(65);
        assert_eq!(all(&mut frames, 2_000_001), 2);
        // A pong for a ping is not enough to go on for ever.
        let mut frames = Frames::new(0);
        let endless = (0..100_000).all(|_| {
            let taken = frames.count(&ping, || 1).is_ok();
            frames.sent(17);
            taken
        });
        assert!(!endless);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            kinds in prop::collection::vec((0_u8..11, 0_u8..2, 0_usize..40), 0..60),
            pieces in prop::collection::vec(1_usize..30, 1..200),
        ) {
            let mut bytes = vec![b'P'; 24];
            kinds.iter().for_each(|(kind, flags, length)| bytes.extend(frame(*kind, *flags, *length)));
            let mut whole = Frames::new(24);
            prop_assert_eq!(whole.count(&bytes, || 1), Ok(()));
            let mut split = Frames::new(24);
            let mut rest = &bytes[..];
            for piece in pieces.iter().cycle() {
                let (piece, behind) = rest.split_at((*piece).min(rest.len()));
                prop_assert_eq!(split.count(piece, || 1), Ok(()));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((whole.budget, whole.left), (split.budget, split.left));
        }
    }
}
