//! How nodes reach each other: the product's own gRPC, over the simulation's TCP. TLS is left out: it decides who may speak, which is not
//! what is simulated, and its randomness would be one more.

use futures::{FutureExt as _, Stream, stream};
use hyper_util::rt::TokioIo;
use raft::{Dial, DialError, Services};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Endpoint, Server, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

/// The port of the cluster listener.
pub const PORT: u16 = 7000;

/// As the product has them.
const KEEPALIVE: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Where a node listens, for its peers.
pub fn address(node: u64) -> String {
    format!("n{node}:{PORT}")
}

/// How a node reaches another.
pub fn dial(patience: Duration) -> Dial {
    Arc::new(move |_, address| {
        async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|error| DialError(error.to_string()))?
                .connect_timeout(patience)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let connector = tower::service_fn(move |_| {
                let address = address.clone();
                async move { TcpStream::connect(address.as_str()).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await.map_err(|error| DialError(error.to_string()))
        }
        .boxed()
    })
}

/// Serves a node's cluster port for as long as the process lives.
pub async fn serve(listener: TcpListener, services: Services) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(services.raft)
        .add_service(services.leader)
        .serve_with_incoming(incoming(listener))
        .await
}

fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> {
    stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    })
}

/// A connection that was accepted.
struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
