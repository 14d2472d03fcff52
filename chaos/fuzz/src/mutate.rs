//! Mutations without coverage: what the tests on the stable toolchain do to the seeds. The same number makes the same
//! mutations, so that a failure can be repeated.

/// The longest input that mutations make.
const BYTES_MAX: usize = 32 * 1024;

/// Numbers that code trips over.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, i32::MAX as u64, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// A source of mutations.
#[derive(Clone, Debug)]
pub struct Mutations {
    random: u64,
}

impl Mutations {
    /// The mutations of this number.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self { random: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one, or 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or_default()
    }

    /// One of the seeds, changed in a few places.
    pub fn mutate(&mut self, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, seeds, words);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn pick<'a>(&mut self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        seeds.get(self.below(seeds.len())).map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) {
        let at = self.below(bytes.len() + 1);
        let length = self.below(bytes.len() - at + 1).min(1 << self.below(11));
        match self.below(9) {
            0 => {
                let bit = 1 << self.below(8);
                bytes.get_mut(at..=at).into_iter().flatten().for_each(|byte| *byte ^= bit);
            }
            1 => {
                let byte = self.next().to_le_bytes();
                bytes
                    .get_mut(at..=at)
                    .into_iter()
                    .flatten()
                    .for_each(|place| *place = byte.first().copied().unwrap_or(0));
            }
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                // As bincode, protobuf and our own files write it.
                let edge = EDGES.get(self.below(EDGES.len())).copied().unwrap_or_default().to_le_bytes();
                let width = 1 << self.below(4);
                for (place, byte) in bytes.iter_mut().skip(at).zip(edge.iter().take(width)) {
                    *place = *byte;
                }
            }
            4 => {
                let again = bytes.get(at..at + length).unwrap_or_default().to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, again);
            }
            5 | 6 if !words.is_empty() => {
                let word = words.get(self.below(words.len())).copied().unwrap_or_default();
                let end = if self.below(2) == 0 { at } else { at + length };
                bytes.splice(at..end, word.bytes());
            }
            5 => {
                let few = self.next().to_le_bytes();
                bytes.splice(at..at, few);
            }
            6 => bytes.truncate(at),
            _ => {
                let other = self.pick(seeds);
                let from = self.below(other.len() + 1);
                let part = other.get(from..).unwrap_or_default();
                let part = part.get(..self.below(part.len() + 1)).unwrap_or_default().to_vec();
                bytes.splice(at..at + length, part);
            }
        }
    }
}
