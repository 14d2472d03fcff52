//! The identity of a write: made once for each thing that is wanted and kept over retries, so that the cluster does it
//! once however often it is asked.

use crate::moment;
use proto::admin::WriteOptions;

/// Identifies one wanted write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    random: [u8; 16],
    issued_ms: u64,
}

impl RequestId {
    /// A new one, dated by this machine's clock. None if the system gives no random bytes.
    pub fn new() -> Option<Self> {
        Self::at(moment::now_ms())
    }

    /// A new one, dated by the cluster's clock: for a machine whose own is wrong.
    pub fn at(issued_ms: u64) -> Option<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        Some(Self { random, issued_ms })
    }

    /// Writes it into the options of a write.
    pub fn put(self, options: &mut WriteOptions) {
        options.request_random = self.random.to_vec();
        options.request_issued_ms = self.issued_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (RequestId::at(7).unwrap(), RequestId::at(7).unwrap());
        assert_ne!(one, other);
        let mut options = WriteOptions::default();
        one.put(&mut options);
        assert_eq!((options.request_random.len(), options.request_issued_ms), (16, 7));
    }
}
