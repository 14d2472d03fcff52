//! One stream of appends to a peer: what is sent, what comes back, and how it ends.
//!
//! openraft hands one stream after the other the same state, of which each takes what is to be sent. So what is given up must not go
//! on taking: the connection can hold on to the body of a call long after the call has failed (a peer that is cut off reads nothing),
//! and what the old body takes, the new one lacks. openraft then sees a stream that ends without having sent anything, and takes that
//! as leave to adopt the last order that it was given, even one that it has done long ago; in one that names entries which are
//! purged by then it finds none, and asks the peer for nothing, for ever, while newer orders wait. Hence three rules:
//!
//! - the requests are dropped together with the answers, whoever still holds the body;
//! - a stream ends without an error only when all is answered;
//! - one whose requests stay hollow ends with an error: then openraft looks at the peer's progress and orders anew.

use crate::{
    codec::{
        self, CodecError,
        form::{AppendForm, AppendedForm},
    },
    types::{LogId, TypeConfig, lock},
};
use futures::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend,
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use proto::peer::Message;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};
use tonic::Status;

/// So many requests in a row that could carry entries and carry none, with the same entry before them, are not chance: a commit that
/// overtakes its entries in openraft's channels makes one, now and then.
const HOLLOW_REQUESTS: u32 = 3;

/// Why a stream has ended early.
#[derive(Debug)]
pub(super) enum End {
    /// The call has failed.
    Failed(Status),
    /// Nothing was heard for too long, although something is unanswered.
    Silent,
    /// A message cannot be read or written.
    Garbled(CodecError),
    /// The peer has ended the stream and owes so many answers.
    Unanswered(u64),
    /// The requests carry nothing, although the peer lacks entries.
    Hollow,
}

/// Notices requests that carry nothing although there is something to carry.
#[derive(Default)]
struct Hollowness {
    before: Option<LogId>,
    repeats: u32,
}

impl Hollowness {
    /// Whether the requests are hollow, `request` included.
    fn see(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        if !request.entries.is_empty() || request.leader_commit <= request.prev_log_id {
            *self = Self::default();
            return false;
        }
        self.repeats = if self.before == request.prev_log_id { self.repeats.saturating_add(1) } else { 1 };
        self.before = request.prev_log_id;
        self.repeats >= HOLLOW_REQUESTS
    }
}

/// What both directions of the stream know.
struct Shared<S> {
    /// Gone as soon as there are no more, or as nobody waits for answers.
    requests: Mutex<Option<S>>,
    unanswered: AtomicU64,
    /// Why no more requests are sent, if it is not that there are none.
    stopped: Mutex<Option<End>>,
}

/// The stream, seen from the answers. Its end is the end of the requests as well.
pub(super) struct Appends<S> {
    shared: Arc<Shared<S>>,
    stall: Duration,
}

impl<S> Drop for Appends<S> {
    fn drop(&mut self) {
        let requests = lock(&self.shared.requests).take();
        drop(requests);
    }
}

impl<S> Appends<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    /// The stream for `requests`, and the messages that they become. Hearing nothing for `stall`, once or twice, is its end when
    /// something is unanswered.
    pub(super) fn new(requests: S, stall: Duration) -> (Self, impl Stream<Item = Message> + Send + 'static) {
        let requests = Mutex::new(Some(requests));
        let shared = Arc::new(Shared { requests, unanswered: AtomicU64::new(0), stopped: Mutex::new(None) });
        let appends = Self { shared: Arc::clone(&shared), stall };
        let mut hollowness = Hollowness::default();
        let messages = stream::poll_fn(move |context| {
            let mut requests = lock(&shared.requests);
            let Some(open) = requests.as_mut() else { return Poll::Ready(None) };
            let Some(request) = ready!(open.poll_next_unpin(context)) else {
                *requests = None;
                return Poll::Ready(None);
            };
            let message = if hollowness.see(&request) {
                Err(End::Hollow)
            } else {
                codec::encode(&AppendForm::from(&request)).map_err(End::Garbled)
            };
            Poll::Ready(match message {
                Ok(body) => {
                    shared.unanswered.fetch_add(1, Ordering::AcqRel);
                    Some(Message { body })
                }
                Err(end) => {
                    *requests = None;
                    *lock(&shared.stopped) = Some(end);
                    None
                }
            })
        });
        (appends, messages)
    }

    /// The answers as openraft takes them; an early end as `error` makes it of its reason.
    pub(super) fn results<'a, A, E>(
        self,
        answers: A,
        error: impl Fn(End) -> E + Send + 'a,
    ) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, E>> + Send + 'a
    where
        A: Stream<Item = Result<Message, Status>> + Send + Unpin + 'a,
        E: Send + 'a,
    {
        stream::unfold(Some((self, answers, error)), |state| async move {
            let (appends, mut answers, error) = state?;
            match appends.next(&mut answers).await? {
                Ok(result) => Some((Ok(result), Some((appends, answers, error)))),
                Err(end) => Some((Err(error(end)), None)),
            }
        })
    }

    async fn next<A>(&self, answers: &mut A) -> Option<Result<StreamAppendResult<TypeConfig>, End>>
    where
        A: Stream<Item = Result<Message, Status>> + Unpin,
    {
        let mut silent_before = false;
        loop {
            return match tokio::time::timeout(self.stall, answers.next()).await {
                Ok(Some(Ok(answer))) => {
                    self.shared.unanswered.fetch_sub(1, Ordering::AcqRel);
                    let form: Result<AppendedForm, _> = codec::decode(&answer.body);
                    Some(form.map(Into::into).map_err(End::Garbled))
                }
                Ok(None) => self.end().map(Err),
                Ok(Some(Err(status))) => Some(Err(End::Failed(status))),
                // Nothing to answer, or perhaps something that was only just sent.
                Err(_) if self.unanswered() == 0 => continue,
                Err(_) if !silent_before => {
                    silent_before = true;
                    continue;
                }
                Err(_) => Some(Err(End::Silent)),
            };
        }
    }

    fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::Acquire)
    }

    /// What is wrong with a stream that the peer has ended in order.
    fn end(&self) -> Option<End> {
        let stopped = lock(&self.shared.stopped).take();
        stopped.or_else(|| match self.unanswered() {
            0 => None,
            count => Some(End::Unanswered(count)),
        })
    }
}

#[cfg(test)]
mod tests;
