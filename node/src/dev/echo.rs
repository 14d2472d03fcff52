//! An upstream that answers any request with what it was asked, as JSON. Bodies are counted, not kept.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde_json::json;
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// Connections at a time: every worker of every node keeps a pool.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The echo server; it ends when this is dropped.
pub(super) struct Echo(JoinHandle<()>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves at this address.
pub(super) async fn serve(address: SocketAddr) -> io::Result<Echo> {
    let listener = TcpListener::bind(address).await?;
    Ok(Echo(tokio::spawn(accept(listener))))
}

async fn accept(listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // A client that breaks off is its own affair.
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)).await;
            drop(permit);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let mut body_length = 0_u64;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        body_length = body_length.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers,
        "body_length": body_length,
    });
    let mut response = Response::new(Full::from(format!("{seen}\n")));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn it_says_what_it_was_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _echo = Echo(tokio::spawn(accept(listener)));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            "POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["method"], "POST");
        assert_eq!(body["path"], "/a/b");
        assert_eq!(body["query"], "c=d");
        assert_eq!(body["body_length"], 5);
        assert!(body["headers"].as_array().unwrap().contains(&json!(["x-one", "1"])), "{body}");
    }
}
