//! What passes and what does not, whatever the pieces; and that the parser behind finds in it what the scanner found.

use super::{oracle, *};
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { head_bytes_max: 1024, fields_max: 8 };

fn judge(text: &[u8]) -> (usize, Option<Fault>) {
    let (passed, scanned) = oracle::passed(text, BOUNDS, &[]);
    (passed.len(), scanned.wrong.map(|wrong| wrong.fault))
}

fn fault(text: &str) -> Option<Fault> {
    judge(text.as_bytes()).1
}

#[test]
fn what_is_sound_passes_whole() {
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
        "VERSION-CONTROL / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nempty:\r\nblank: \t \r\ntab: a\tb\r\nhigh: \u{e4}\r\n\r\n",
        "GET /?q=\u{e4}{}|^` HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: \t 003 \r\n\r\na\nb",
        "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n000a;x=\"y\";z\r\n0123456789\r\n1\r\n\n\r\n00\r\na: b\r\nc:\r\n\r\n",
    ] {
        assert_eq!(judge(text.as_bytes()), (text.len(), None), "{text:?}");
    }
}

#[test]
fn what_two_readers_could_see_differently_does_not() {
    use Fault::*;
    let many = "a: b\r\n".repeat(9);
    let long = "a".repeat(1024);
    for (text, expected) in [
        ("GET / HTTP/1.1\nhost: a\n\n", LineEnd),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\r\n\r\n", LineEnd),
        ("\n", LineEnd),
        ("GET / HTTP/1.1\r\nhost: a\0\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\nhost: a\x0b\r\n\r\n", ControlByte),
        ("GET /\x7f HTTP/1.1\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", FoldedLine),
        ("GET / HTTP/1.1\r\na: b\r\n\tc\r\n\r\n", FoldedLine),
        ("GET / HTTP/1.1\r\n a: b\r\n\r\n", FoldedLine),
        ("GET /\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n", RequestLine),
        (" GET / HTTP/1.1\r\n", RequestLine),
        ("GET / HTTP/1.1 \r\n", RequestLine),
        ("GET /a b HTTP/1.1\r\n", RequestLine),
        ("GET\t/ HTTP/1.1\r\n", RequestLine),
        ("\r\n\r\n", RequestLine),
        ("get / HTTP/1.1\r\n", Method),
        ("G@T / HTTP/1.1\r\n", Method),
        ("GETTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT / HTTP/1.1\r\n", Method),
        ("GET a HTTP/1.1\r\n", Target),
        ("GET a:80 HTTP/1.1\r\n", Target),
        ("GET ftp://a/ HTTP/1.1\r\n", Target),
        ("GET /#a HTTP/1.1\r\n", Target),
        ("GET http://a/#a HTTP/1.1\r\n", Target),
        ("GET /<a> HTTP/1.1\r\n", Target),
        ("GET /?a=<b> HTTP/1.1\r\n", Target),
        ("GET http:///a HTTP/1.1\r\n", Target),
        ("GET http://a?b HTTP/1.1\r\n", Target),
        ("GET / HTTP/1.2\r\n", Version),
        ("GET / HTTP/2.0\r\n", Version),
        ("GET / http/1.1\r\n", Version),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nhost\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nh\u{e4}: a\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nh(: a\r\n\r\n", FieldName),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: 0x3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: 3 3\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length:\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: 1234567890123456789\r\n\r\nabc", ContentLength),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", TwoLengths),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", TwoLengths),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked;a=b\r\n\r\n0\r\n\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n", TransferEncoding),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
            TransferEncoding,
        ),
        (&format!("GET / HTTP/1.1\r\n{many}\r\n"), TooManyFields),
        (&format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n"), HeadTooLong),
        (&format!("GET / HTTP/1.1\r\na: {long}{long}"), HeadTooLong),
        (&format!("GET /{long}{long} HTTP/1.1\r\n\r\n"), HeadTooLong),
        (&format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", &long[..257]), FieldName),
    ] {
        assert_eq!(fault(text), Some(expected), "{text:?}");
        assert_eq!(judge(text.as_bytes()).0, 0, "nothing of {text:?} passes");
        // Nor behind a good one.
        let good = "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(judge(format!("{good}{text}").as_bytes()), (good.len(), Some(expected)), "{text:?}");
    }
}

#[test]
fn a_target_is_no_longer_than_the_parser_takes() {
    let bounds = Bounds { head_bytes_max: 200_000, fields_max: 8 };
    let of = |length: usize| {
        let text = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
        oracle::passed(text.as_bytes(), bounds, &[]).1.wrong.map(|wrong| wrong.fault)
    };
    assert_eq!(of(65_534), None);
    assert_eq!(of(65_535), Some(Fault::TargetTooLong));
}

#[test]
fn chunks_that_are_not_well_formed_end_the_body() {
    use Fault::*;
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let extension = format!("1;{}\r\n", "x".repeat(8193));
    let trailer = format!("0\r\na: {}\r\n\r\n", "x".repeat(8192));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(33));
    let name = format!("0\r\n{}: b\r\n\r\n", "a".repeat(257));
    for (body, expected) in [
        ("\r\n", ChunkSize),
        ("g\r\n", ChunkSize),
        ("0x1\r\n", ChunkSize),
        ("-1\r\n", ChunkSize),
        (" 1\r\n", ChunkSize),
        ("1 \r\n", ChunkSize),
        ("1\n", ChunkSize),
        ("1000000000000000\r\n", ChunkSize),
        ("1\rx", LineEnd),
        ("1;a\nb\r\n", ChunkExtension),
        ("1;\0\r\n", ChunkExtension),
        (&extension, ChunkExtension),
        ("1\r\nabc\r\n", ChunkEnd),
        ("1\r\na\n", ChunkEnd),
        ("1\r\na\r\r", ChunkEnd),
        ("0\r\n\n", Trailer),
        ("0\r\n\rx", LineEnd),
        ("0\r\n a: b\r\n\r\n", Trailer),
        ("0\r\na : b\r\n\r\n", Trailer),
        ("0\r\na\r\n\r\n", Trailer),
        ("0\r\na: \0\r\n\r\n", Trailer),
        ("0\r\na: b\n\r\n", Trailer),
        ("0\r\na: b\rc\r\n\r\n", LineEnd),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", Trailer),
        (&trailer, Trailer),
        (&trailers, Trailer),
        (&name, Trailer),
    ] {
        let text = format!("{head}{body}");
        let (passed, scanned) = oracle::passed(text.as_bytes(), BOUNDS, &[]);
        let wrong = scanned.wrong.unwrap_or_else(|| panic!("{body:?} passed"));
        assert_eq!((wrong.fault, wrong.request, wrong.place), (expected, 0, Place::Body), "{body:?}");
        assert!((head.len()..text.len()).contains(&passed.len()), "{body:?}");
    }
}

#[test]
fn where_a_head_is_wrong_is_told() {
    let line = "\r\nPOST /x HTTP/1.1\r\n";
    let (_, scanned) = oracle::passed(format!("{line}a : b\r\n\r\n").as_bytes(), BOUNDS, &[3, 1, 20]);
    assert_eq!(scanned.wrong.map(|wrong| wrong.place), Some(Place::Head { request_line: line.len() }));
    let (_, scanned) = oracle::passed(b"nothing\r\n", BOUNDS, &[]);
    assert_eq!(scanned.wrong.map(|wrong| wrong.place), Some(Place::Head { request_line: 0 }));
}

#[test]
fn every_fault_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.reason()).collect();
    assert_eq!(words.len(), Fault::ALL.len());
    assert!(Fault::ALL.iter().all(|fault| !fault.detail().is_empty()));
}

/// Requests, pieces of requests, and what attackers put between them.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just("GET /a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        Just("GET http://h/a?b HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned()),
        "[a-z\r\n]{0,12}".prop_map(|body| format!("POST /b HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())),
        ("[a-z\r\n ]{1,20}", "(;[a-z=]{0,5})?", "(t: u\r\n)?").prop_map(|(data, extension, trailer)| {
            let size = data.len();
            format!(
                "PUT /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size:x}{extension}\r\n{data}\r\n0\r\n{trailer}\r\n"
            )
        }),
    ];
    let piece = prop::sample::select(vec![
        "GET",
        "POST ",
        "/",
        "/a",
        "*",
        "http://",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\0",
        ":",
        "host: a",
        "content-length: 3",
        "Content-Length: 0",
        "transfer-encoding: chunked",
        "a:b",
        ",",
        "0",
        "3",
        "abc",
        ";x",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "connection: close\r\n",
        "expect: 100-continue\r\n",
        "#",
        "?",
        "upgrade: h2c\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ])
    .prop_map(str::to_owned);
    let noise = prop::collection::vec(any::<u8>(), 0..6).prop_map(|noise| String::from_utf8_lossy(&noise).into_owned());
    let part = prop_oneof![6 => good, 3 => piece, 1 => noise];
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0_u8..4);
    (prop::collection::vec(part, 1..8), prop::option::weighted(0.5, change)).prop_map(|(parts, change)| {
        let mut bytes = parts.concat().into_bytes();
        if let Some((place, byte, how)) = change
            && !bytes.is_empty()
        {
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.remove(place)),
                _ => bytes.truncate(place),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_finds_what_the_scanner_found(bytes in stream(), pieces in prop::collection::vec(0_usize..24, 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(oracle::check(&bytes, BOUNDS, &pieces));
    }
}

/// `cargo test -p quorate --release -- --ignored --nocapture cost_of_a_head`
#[test]
#[ignore = "a measurement"]
fn cost_of_a_head() {
    let plain = b"GET /orders/17 HTTP/1.1\r\nHost: api.example.com\r\nX-Api-Key: qk_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789abcdef\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
    let bounds = Bounds { head_bytes_max: 64 * 1024, fields_max: 100 };
    let mut messages = Messages::new(bounds);
    let mut best = std::time::Duration::MAX;
    for _ in 0..20 {
        let began = std::time::Instant::now();
        for _ in 0..100_000 {
            let scanned = messages.scan(std::hint::black_box(plain));
            assert!(std::hint::black_box(scanned).passed == plain.len());
        }
        best = best.min(began.elapsed());
    }
    println!("{} bytes: {:.0} ns", plain.len(), best.as_nanos() as f64 / 100_000.0);
}
