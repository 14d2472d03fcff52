//! The upstream: 1 KiB for every request, whatever it says. One thread; requests have no body.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY_BYTES: usize = 1024;

/// Starts it; it ends with the program.
pub fn start() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::Builder::new().name("upstream".to_owned()).spawn(move || serve(listener)).expect("a thread");
    address
}

fn serve(listener: std::net::TcpListener) {
    let answer: &'static [u8] = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n{}",
            "x".repeat(BODY_BYTES)
        )
        .into_bytes()
        .into_boxed_slice(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, answer));
        }
    });
}

async fn answer_all(mut stream: TcpStream, answer: &'static [u8]) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 16 * 1024];
    // How far into the empty line that ends a head the bytes so far have come.
    let mut matched = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        for byte in &buffer[..count] {
            matched = match (byte, matched) {
                (b'\r', 0 | 2) | (b'\n', 1) => matched + 1,
                (b'\n', 3) => {
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                    0
                }
                (b'\r', _) => 1,
                _ => 0,
            };
        }
    }
}
