//! Making a connection to a target: TCP, TLS if it speaks that, HTTP/1.1.

use super::{
    body::UploadBody,
    pool::{Lease, Permit},
};
use crate::{gathered::Gathered, resource::compile::CompiledTarget};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// The most bytes of an answer's head, and of what is read ahead of its body.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// A target that could not be reached.
pub(crate) struct ConnectError {
    pub(crate) target: usize,
    pub(crate) timed_out: bool,
    pub(crate) reason: &'static str,
}

pub(crate) async fn connect(permit: Permit, at_most: Duration) -> Result<Lease, ConnectError> {
    let index = permit.target();
    let error = |timed_out, reason| ConnectError { target: index, timed_out, reason };
    match timeout(at_most, establish(permit)).await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(reason)) => Err(error(false, reason)),
        Err(_) => Err(error(true, "connect-timeout")),
    }
}

async fn establish(permit: Permit) -> Result<Lease, &'static str> {
    let target: Option<&CompiledTarget> = permit.upstream().targets.get(permit.target());
    let target = target.ok_or("no-target")?;
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| {
        tracing::debug!(target = %target.text, %error, "cannot connect");
        "connect-refused"
    })?;
    // Requests are written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let stream = Gathered(stream);
    match &target.tls {
        None => handshake(permit, stream).await,
        Some(tls) => {
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(tls.name.clone(), stream).await.map_err(|error| {
                tracing::warn!(target = %target.text, %error, "no TLS with the target");
                "tls-not-accepted"
            })?;
            handshake(permit, stream).await
        }
    }
}

async fn handshake<S>(permit: Permit, stream: S) -> Result<Lease, &'static str>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake::<_, UploadBody>(TokioIo::new(stream))
        .await
        .map_err(|_| "closed-at-once")?;
    let lease = Lease::new(&permit, sender);
    // One task for each connection, not for each request. It ends with the connection, which ends with its sender.
    tokio::spawn(async move {
        let _permit = permit;
        let _ = connection.await;
    });
    Ok(lease)
}
