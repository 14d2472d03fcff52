//! TCP links between nodes that can be cut while they carry something.

use futures::FutureExt;
use hyper_util::rt::TokioIo;
use machine::member::NodeId;
use raft::{Dial, DialError};
use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tonic::transport::Endpoint;

/// All links of a cluster: who is cut off.
#[derive(Clone)]
pub(crate) struct Links {
    cut: Arc<watch::Sender<BTreeSet<NodeId>>>,
}

impl Default for Links {
    fn default() -> Self {
        Self { cut: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }
}

impl Links {
    /// Cuts a node off from all others, or lets it back in.
    pub(crate) fn isolate(&self, node: NodeId, isolated: bool) {
        self.cut.send_modify(|cut| {
            if isolated {
                cut.insert(node);
            } else {
                cut.remove(&node);
            }
        });
    }

    /// How `from` dials others.
    pub(crate) fn dial(&self, from: NodeId) -> Dial {
        let cut = Arc::clone(&self.cut);
        Arc::new(move |to, address| {
            let cut = Arc::clone(&cut);
            async move {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))
                    .map_err(|error| DialError(error.to_string()))?
                    .connect_timeout(Duration::from_secs(2));
                let connector = tower::service_fn(move |_| {
                    let (cut, address) = (cut.subscribe(), address.clone());
                    async move { Link::connect(cut, from, to, &address).await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await.map_err(|error| DialError(format!("{error:?}")))
            }
            .boxed()
        })
    }
}

/// A TCP stream that breaks when one of its ends is cut off.
struct Link {
    stream: TcpStream,
    broken: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Link {
    async fn connect(
        mut cut: watch::Receiver<BTreeSet<NodeId>>,
        from: NodeId,
        to: NodeId,
        address: &str,
    ) -> io::Result<Self> {
        let is_cut = move |cut: &BTreeSet<NodeId>| cut.contains(&from) || cut.contains(&to);
        if is_cut(&cut.borrow()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let broken = async move {
            let _ = cut.wait_for(|cut| is_cut(cut)).await;
        };
        Ok(Self { stream, broken: Box::pin(broken) })
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.broken.poll_unpin(context) {
            Poll::Ready(()) => {
                self.broken = Box::pin(async {});
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
