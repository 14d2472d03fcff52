//! HTTP/2 clients that misbehave, written frame by frame: each is cut off or stays within bounds, and another client is
//! served meanwhile.

use crate::harness::*;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// More than any of these may make the process grow, other tests included.
const GROWTH_BYTES_MAX: usize = 384 * 1024 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that is not remembered.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        // Lengths with a prefix of seven bits (RFC 7541, 5.1).
        if text.len() < 127 {
            field.push(text.len() as u8);
        } else {
            field.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                field.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            field.push(rest as u8);
        }
        field.extend(text);
    }
    field
}

/// `GET path`: method and scheme are in the static table.
fn get_block(path: &str) -> Vec<u8> {
    [vec![0x82, 0x86], field(b":path", path.as_bytes()), field(b":authority", b"api.test")].concat()
}

fn open(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block(path))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A connection that has said hello.
async fn connect(address: SocketAddr, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
    stream
}

/// Sends the same or other frames again and again, reads what comes, and waits until the gateway has had enough.
async fn until_cut_off(address: SocketAddr, what: &str, mut more: impl FnMut(u32) -> Vec<u8>) {
    let (mut reader, mut writer) = connect(address, &[]).await.into_split();
    let read = tokio::spawn(async move {
        let mut room = vec![0; 64 * 1024];
        while reader.read(&mut room).await.is_ok_and(|count| count > 0) {}
    });
    soon(what, async {
        for round in 0.. {
            if read.is_finished() || writer.write_all(&more(round)).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(writer);
    soon(what, read).await.unwrap();
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection_and_nothing_else() {
    // What is reset before it is answered: what is answered has been asked for.
    let upstream = Upstream::start(|request| async {
        if request.uri().path() == "/open/never" {
            std::future::pending::<()>().await;
        }
        echo(request).await
    })
    .await;
    let cluster = Cluster::start(&resources(&upstream.url())).await;
    let address = cluster.address();
    let before = resident_bytes();
    let mut other = Client::connect(address).await;

    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    until_cut_off(address, "the end of a ping flood", |_| pings.clone()).await;
    assert_eq!(other.get("/open/x", "").await.status, 200);

    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(500);
    until_cut_off(address, "the end of a settings flood", |_| settings.clone()).await;
    let empty = frame(SETTINGS, 0, 0, &[]).repeat(500);
    until_cut_off(address, "the end of an empty settings flood", |_| empty.clone()).await;
    assert_eq!(other.get("/open/x", "").await.status, 200);

    let priorities = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(500);
    until_cut_off(address, "the end of a priority flood", |_| priorities.clone()).await;
    let unknown = frame(0xfa, 0, 1, &[0; 20]).repeat(500);
    until_cut_off(address, "the end of a flood of unknown frames", |_| unknown.clone()).await;
    let windows = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(500);
    until_cut_off(address, "the end of a window flood", |_| windows.clone()).await;

    // Streams that are opened and reset at once, and streams that are reset once they have begun.
    until_cut_off(address, "the end of a rapid reset", |round| {
        (0..50)
            .flat_map(|place| {
                [open(round * 100 + place * 2 + 1, "/open/never"), reset(round * 100 + place * 2 + 1)].concat()
            })
            .collect()
    })
    .await;
    until_cut_off(address, "the end of a slower reset", |round| {
        if round % 2 == 0 { open(round + 1, "/open/never") } else { reset(round) }
    })
    .await;
    assert_eq!(other.get("/open/x", "").await.status, 200);

    let block = get_block("/open/x");
    until_cut_off(address, "the end of an endless header block", |round| {
        if round == 0 { frame(HEADERS, END_STREAM, 1, &block) } else { frame(CONTINUATION, 0, 1, &[]).repeat(100) }
    })
    .await;
    let filler = field(b"x-filler", &[b'a'; 4000]);
    until_cut_off(address, "the end of a long header block", |round| {
        if round == 0 { frame(HEADERS, END_STREAM, 1, &block) } else { frame(CONTINUATION, 0, 1, &filler) }
    })
    .await;
    // A field of four thousand bytes, remembered once and then named by one byte, four thousand times a stream.
    let remembered = [vec![0x40], field(b"x-bomb", &[b'a'; 3900]).split_off(1)].concat();
    let bomb = [block.clone(), remembered, vec![0x80 | 62; 4000]].concat();
    until_cut_off(address, "the end of a header bomb", |round| {
        frame(HEADERS, END_STREAM | END_HEADERS, round * 2 + 1, &bomb)
    })
    .await;
    let nothing = frame(DATA, 0, 1, &[]).repeat(500);
    let upload = [vec![0x83, 0x86], field(b":path", b"/open/x"), field(b":authority", b"api.test")].concat();
    until_cut_off(address, "the end of a flood of empty data", |round| {
        if round == 0 { frame(HEADERS, END_HEADERS, 1, &upload) } else { nothing.clone() }
    })
    .await;

    assert_eq!(other.get("/open/x", "").await.status, 200);
    let gateway = cluster.gateway.clone();
    until("the end of every request", || gateway.status().in_flight == 0).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes");
}

#[tokio::test]
async fn a_little_too_much_is_answered_in_words() {
    let upstream = Upstream::echo().await;
    let mut with = settings();
    with.caps.header_bytes_max = 8192;
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let mut client = Client::http2(TcpStream::connect(cluster.address()).await.unwrap()).await;
    let long = http::Request::get("/open/x").header("x-long", "y".repeat(10_000)).body(full("")).unwrap();
    assert_eq!(client.ask(long).await.problem(), "431 headers-too-large");
    assert_eq!(client.get("/open/x", "").await.status, 200);
}

#[tokio::test]
async fn a_connection_has_so_many_streams() {
    const REFUSED_STREAM: u32 = 7;
    let upstream = Upstream::start(|_| std::future::pending::<http::Response<AnyBody>>()).await;
    let mut with = settings();
    with.caps.streams_max = 4;
    let cluster = Cluster::start_with(with, &resources(&upstream.url())).await;
    let mut client = connect(cluster.address(), &[]).await;
    let opened: Vec<u8> = (0..6).flat_map(|number| open(number * 2 + 1, "/open/never")).collect();
    client.write_all(&opened).await.unwrap();
    let mut refused = Vec::new();
    soon("two refusals", async {
        while refused.len() < 2 {
            let mut header = [0; 9];
            client.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            client.read_exact(&mut payload).await.unwrap();
            if header[3] == RST_STREAM {
                assert_eq!(payload, REFUSED_STREAM.to_be_bytes());
                refused.push(u32::from_be_bytes([header[5], header[6], header[7], header[8]]));
            }
        }
    })
    .await;
    assert_eq!(refused, [9, 11]);
    let gateway = cluster.gateway.clone();
    until("the others", || gateway.status().in_flight == 4).await;
}
