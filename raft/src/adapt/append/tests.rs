//! What is sent and what comes back, with answers made by hand.

use super::*;
use crate::{
    codec::form::LogIdForm,
    types::{LeaderId, LogEntry, Vote},
};
use futures::FutureExt;
use openraft::EntryPayload;

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

/// A request that follows the entry `previous`, as of a leader that has committed all up to `committed`.
fn request(previous: u64, committed: u64, entries: u64) -> AppendEntriesRequest<TypeConfig> {
    let entries =
        (1..=entries).map(|place| LogEntry { log_id: id(previous + place), payload: EntryPayload::Blank }).collect();
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(id(previous)),
        leader_commit: Some(id(committed)),
        entries,
    }
}

fn answer(index: u64) -> Result<Message, Status> {
    let form = AppendedForm::Matched(Some(LogIdForm { term: 1, node: 1, index }));
    Ok(Message { body: codec::encode(&form).unwrap() })
}

/// How many of `requests` are sent, and what openraft gets when these are the answers: indexes that match, and the reason of the end
/// if it is an error.
fn run(
    requests: Vec<AppendEntriesRequest<TypeConfig>>,
    answers: Vec<Result<Message, Status>>,
) -> (usize, Vec<u64>, Option<End>) {
    let (appends, messages) = Appends::new(stream::iter(requests), Duration::from_secs(60));
    let sent = messages.count().now_or_never().unwrap();
    let results: Vec<_> = appends.results(stream::iter(answers), |end| end).collect().now_or_never().unwrap();
    let (mut matched, mut end) = (vec![], None);
    for result in results {
        match result {
            Ok(result) => matched.push(result.unwrap().unwrap().index()),
            Err(reason) => end = Some(reason),
        }
    }
    (sent, matched, end)
}

#[tokio::test]
async fn what_is_answered_ends_without_an_error() {
    let (sent, matched, end) = run(vec![request(4, 4, 2), request(6, 6, 0)], vec![answer(6), answer(6)]);
    assert_eq!((sent, matched), (2, vec![6, 6]));
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn an_end_before_the_last_answer_is_an_error() {
    let (sent, matched, end) = run(vec![request(4, 4, 2), request(6, 6, 1), request(7, 7, 1)], vec![answer(6)]);
    assert_eq!((sent, matched), (3, vec![6]));
    assert!(matches!(end, Some(End::Unanswered(2))), "{end:?}");
}

#[tokio::test]
async fn requests_that_never_carry_what_is_behind_them_end_the_stream() {
    let hollow: Vec<_> = (0..50).map(|_| request(13, 883, 0)).collect();
    let (sent, matched, end) = run(hollow, vec![answer(13), answer(13)]);
    assert_eq!((sent, matched), (2, vec![13, 13]));
    assert!(matches!(end, Some(End::Hollow)), "{end:?}");
}

#[tokio::test]
async fn requests_that_only_tell_of_commits_do_not() {
    // All is sent, and of what is sent more and more is committed; and twice a commit is told before its entry is read.
    let mut requests: Vec<_> = (0..50).map(|committed| request(50, committed, 0)).collect();
    requests.extend([
        request(50, 51, 0),
        request(50, 51, 1),
        request(51, 52, 0),
        request(51, 53, 0),
        request(51, 53, 2),
    ]);
    let answers = requests.iter().map(|request| answer(request.prev_log_id.unwrap().index())).collect();
    let count = requests.len();
    let (sent, matched, end) = run(requests, answers);
    assert_eq!((sent, matched.len()), (count, count));
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn who_gives_up_the_answers_gives_up_the_requests() {
    let held = Arc::new(());
    let counted = Arc::clone(&held);
    let requests = stream::iter((1..9).map(move |index| {
        let _ = &counted;
        request(index, index, 1)
    }));
    let (appends, mut messages) = Appends::new(requests, Duration::from_secs(60));
    assert!(messages.next().now_or_never().flatten().is_some());
    let results = appends.results(stream::pending(), |end| end);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(results);
    // The connection still has the body.
    assert_eq!(Arc::strong_count(&held), 1, "the requests are still there");
    assert!(messages.next().now_or_never().unwrap().is_none());
}

#[tokio::test]
async fn what_fails_is_said() {
    let (_, _, end) = run(vec![request(4, 4, 1)], vec![Err(Status::unavailable("gone"))]);
    assert!(matches!(end, Some(End::Failed(_))), "{end:?}");
    let (_, _, end) = run(vec![request(4, 4, 1)], vec![Ok(Message { body: bytes::Bytes::from_static(b"?") })]);
    assert!(matches!(end, Some(End::Garbled(_))), "{end:?}");
}
