//! Clients and an upstream that cost little: fixed bytes out, and only so much reading as tells where a message ends.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::LocalSet,
};

const BODY_BYTES: usize = 1024;
const END: &[u8] = b"\r\n\r\n";

/// Starts an upstream that answers everything with a kilobyte.
pub fn upstream() -> SocketAddr {
    let (said, address) = channel();
    thread::Builder::new()
        .name("upstream".into())
        .spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                said.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    tokio::task::spawn_local(answer(stream));
                }
            });
        })
        .unwrap();
    address.recv().unwrap()
}

async fn answer(mut stream: TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    let answer = [head.as_bytes(), &[b'x'; BODY_BYTES]].concat();
    let mut read = Vec::with_capacity(4096);
    loop {
        match stream.read_buf(&mut read).await {
            Ok(1..) => {}
            _ => return,
        }
        // Nobody sends a second request before the first is answered.
        if read.ends_with(END) {
            read.clear();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// Clients on a thread of their own.
pub struct Load {
    asked: Sender<(SocketAddr, &'static str, usize)>,
    done: Receiver<usize>,
}

impl Load {
    pub fn start(connections: usize, key: String) -> Self {
        let (asked, orders) = channel::<(SocketAddr, &'static str, usize)>();
        let (report, done) = channel();
        thread::Builder::new()
            .name("clients".into())
            .spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                while let Ok((address, path, requests)) = orders.recv() {
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nhost: bench.example.com\r\nuser-agent: bench\r\naccept: */*\r\nx-api-key: {key}\r\n\r\n"
                    );
                    let count = LocalSet::new().block_on(&runtime, async {
                        let request: std::rc::Rc<[u8]> = request.into_bytes().into();
                        let clients: Vec<_> = (0..connections)
                            .map(|_| tokio::task::spawn_local(ask(address, request.clone(), requests)))
                            .collect();
                        for client in clients {
                            client.await.unwrap();
                        }
                        connections * requests
                    });
                    report.send(count).unwrap();
                }
            })
            .unwrap();
        Self { asked, done }
    }

    /// So many requests on each connection; says how many in all. Anything but 200 fails the run.
    pub fn run(&self, address: SocketAddr, path: &'static str, requests: usize) -> usize {
        self.asked.send((address, path, requests)).unwrap();
        self.done.recv().expect("every answer is 200")
    }
}

async fn ask(address: SocketAddr, request: std::rc::Rc<[u8]>, requests: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::with_capacity(4096);
    for _ in 0..requests {
        stream.write_all(&request).await.unwrap();
        read.clear();
        loop {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed: {}", String::from_utf8_lossy(&read));
            let end = read.windows(END.len()).position(|window| window == END);
            if end.is_some_and(|end| read.len() >= end + END.len() + BODY_BYTES) {
                break;
            }
            assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
        }
    }
}
