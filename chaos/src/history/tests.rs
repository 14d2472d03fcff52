//! Tests of the history's files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use super::*;
use std::fs;

fn request(number: u64) -> What {
    What::Request(Request {
        request: number,
        node: 1,
        credential: "k1#1".into(),
        route: "open".into(),
        began_us: number,
        outcome: RequestOutcome::Answered { status: 429, problem: Some("rate-limited".into()) },
    })
}

#[test]
fn what_was_recorded_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, writer) = Recorder::begin(folder.path()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let recorder = recorder.clone();
            thread::spawn(move || (0..1_000).for_each(|place| recorder.record(request(thread * 1_000 + place))))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    recorder.secret(Secret { name: "key k1#1".into(), text: "qk_secret".into(), may_be_in: Vec::new() });
    assert_eq!(recorder.end(writer).unwrap(), 4_001);
    let history = History::read(folder.path()).unwrap();
    assert!(history.complete);
    assert_eq!(history.events.len(), 4_001);
    assert_eq!(history.secrets[0].text, "qk_secret");
    assert!(!format!("{history:?}").contains("qk_secret"));
    let shared = |event: &Event| match &event.what {
        What::Request(request) => Arc::strong_count(&request.credential),
        _ => 0,
    };
    assert!(shared(&history.events[0]) >= 4_000, "names are shared");
}

#[test]
fn a_run_that_was_killed_is_read_up_to_where_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let line = serde_json::to_string(&Event { at_us: 3, what: request(1) }).unwrap();
    fs::write(folder.path().join(HISTORY_FILE), format!("{line}\n{}", &line[..20])).unwrap();
    let history = History::read(folder.path()).unwrap();
    assert_eq!((history.events.len(), history.complete), (1, false));
    fs::write(folder.path().join(HISTORY_FILE), format!("{}\n{line}\n", &line[..20])).unwrap();
    assert!(History::read(folder.path()).is_err(), "a broken line in the middle is no run's end");
}
