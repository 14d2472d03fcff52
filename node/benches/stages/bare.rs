//! A proxy that does nothing but pass on: hyper on one `current_thread` runtime, connections to the upstream kept, no
//! keys, no limits, no log, no deadline. What the data plane costs beyond this is its own.

use bytes::Bytes;
use http::{HeaderName, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::mpsc::channel,
    task::{Context, Poll},
    thread,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

type Pool = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

/// A body that gives its connection back when it has come to its end.
struct Returning {
    incoming: Incoming,
    sender: Option<SendRequest<Incoming>>,
    pool: Pool,
}

impl HttpBody for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if self.incoming.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.pool.borrow_mut().push(sender);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

async fn pass(mut request: Request<Incoming>, pool: Pool, to: SocketAddr) -> Result<Response<Returning>, hyper::Error> {
    for name in [header::CONNECTION, HeaderName::from_static("keep-alive")] {
        request.headers_mut().remove(name);
    }
    let kept = pool.borrow_mut().pop();
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, connection) = client::Builder::new().handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move { drop(connection.await) });
            sender
        }
    };
    sender.ready().await?;
    let (parts, incoming) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(parts, Returning { incoming, sender: Some(sender), pool }))
}

/// Starts it on a thread of that name.
pub fn start(to: SocketAddr) -> SocketAddr {
    let (said, address) = channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            said.send(listener.local_addr().unwrap()).unwrap();
            let pool = Pool::default();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let pool = Rc::clone(&pool);
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| pass(request, Rc::clone(&pool), to));
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
    };
    thread::Builder::new().name("bare".into()).spawn(serve).unwrap();
    address.recv().unwrap()
}
