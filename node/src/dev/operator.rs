//! Speaks to dev's cluster as its first operator, the way quoratectl would.

use super::{
    DevError, example,
    home::{Home, Layout},
};
use crate::{
    clock::SystemClock,
    cluster_port::dial_with,
    pki::{PkiError, certificate::read_all, random, trust::client_config},
};
use prost::Message;
use proto::admin::{
    ApplyRequest, CreateJoinTokenRequest, CreateKeyRequest, ListResourcesRequest, Problem, ResourceFile, StatusReply,
    StatusRequest, WriteOptions, cluster_client::ClusterClient, keys_client::KeysClient,
    resources_client::ResourcesClient,
};
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::{Code, Status, transport::Channel};

/// How long dialing a node may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long something that should work is tried while the cluster settles.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The first operator, with the addresses of all nodes.
pub(super) struct Operator {
    addresses: Vec<String>,
    config: ClientConfig,
}

impl Operator {
    /// With the context that `init` wrote.
    pub(super) fn of(home: &Home, layout: &Layout) -> Result<Self, DevError> {
        let folder = home.context_folder();
        let read = |file: PathBuf| std::fs::read_to_string(&file).map_err(|source| PkiError::File { file, source });
        let authorities = read_all(&read(folder.join("ca.pem"))?)?;
        let certificates = read_all(&read(folder.join("operator.pem"))?)?;
        let key_file = folder.join("operator.key");
        let key = PrivateKeyDer::from_pem_slice(read(key_file.clone())?.as_bytes())
            .map_err(|_| PkiError::Damaged { file: key_file, what: "holds no private key".to_owned() })?;
        let addresses = layout.nodes.iter().map(|node| node.cluster.to_string()).collect();
        Ok(Self { addresses, config: client_config(&authorities, certificates, key)? })
    }

    /// A new join token.
    pub(super) async fn join_token(&self) -> Result<String, DevError> {
        let write = Some(write()?);
        let ttl_ms = 10 * 60 * 1000;
        self.ask(async |channel| {
            let request = CreateJoinTokenRequest { write: write.clone(), ttl_ms };
            Ok(ClusterClient::new(channel).create_join_token(request).await?.into_inner().token)
        })
        .await
    }

    /// Applies a resource file.
    pub(super) async fn apply(&self, file: &Path, text: &str) -> Result<(), DevError> {
        let write = Some(write()?);
        self.ask(async |channel| {
            let file = Some(ResourceFile { name: file.display().to_string(), text: text.to_owned() });
            let request = ApplyRequest { write: write.clone(), file, prune: false, dry_run: false };
            ResourcesClient::new(channel).apply(request).await.map(drop)
        })
        .await
    }

    /// A key of the example's consumer, or of the first one of another configuration.
    pub(super) async fn create_example_key(&self) -> Result<String, DevError> {
        let consumers = self
            .ask(async |channel| {
                let request = ListResourcesRequest { kind: "consumer".to_owned() };
                Ok(ResourcesClient::new(channel).list(request).await?.into_inner().resources)
            })
            .await?;
        let consumer = match consumers.first() {
            Some(consumer) => consumer.name.clone(),
            None => {
                let text = format!("consumers:\n  {}: {{}}\n", example::CONSUMER);
                self.apply(Path::new("consumer.yaml"), &text).await?;
                example::CONSUMER.to_owned()
            }
        };
        let write = Some(write()?);
        self.ask(async |channel| {
            let request = CreateKeyRequest {
                write: write.clone(),
                consumer: consumer.clone(),
                name: "made by quorate dev".to_owned(),
                ..CreateKeyRequest::default()
            };
            Ok(KeysClient::new(channel).create(request).await?.into_inner().key)
        })
        .await
    }

    /// How the cluster is.
    pub(super) async fn status(&self) -> Result<StatusReply, DevError> {
        self.ask(async |channel| Ok(ClusterClient::new(channel).status(StatusRequest {}).await?.into_inner())).await
    }

    /// Waits until all nodes are there, as many as should vote do, and nobody is behind.
    pub(super) async fn wait_until_whole(
        &self,
        nodes: usize,
        voters: usize,
        timeout: Duration,
    ) -> Result<(), DevError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let status = self.status().await?;
            let voting = status.nodes.iter().filter(|node| matches!(node.role.as_str(), "leader" | "voter")).count();
            let there = status.nodes.iter().filter(|node| node.reachable && node.lag == 0).count();
            if status.leader != 0 && voting == voters && there == nodes {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(DevError::Cluster(format!(
                    "the cluster did not become whole in {} s: {there} of {nodes} nodes are up to date, {voting} of {voters} vote",
                    timeout.as_secs()
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks one node after the other until one answers.
    async fn ask<T>(&self, ask: impl AsyncFn(Channel) -> Result<T, Status>) -> Result<T, DevError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut last = "there are no nodes".to_owned();
        while tokio::time::Instant::now() < deadline {
            for address in &self.addresses {
                let channel = match dial_with(address.clone(), self.config.clone(), DIAL_TIMEOUT).await {
                    Ok(channel) => channel,
                    Err(error) => {
                        last = format!("{address}: {error}");
                        continue;
                    }
                };
                match ask(channel).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                        last = format!("{address}: {}", status.message());
                    }
                    Err(status) => return Err(DevError::Cluster(in_words(&status))),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(DevError::Cluster(last))
    }
}

fn write() -> Result<WriteOptions, DevError> {
    let random: [u8; 16] = random()?;
    Ok(WriteOptions {
        request_random: random.to_vec(),
        request_issued_ms: SystemClock.utc_ms(),
        ..WriteOptions::default()
    })
}

/// A refusal, with every place that it names.
fn in_words(status: &Status) -> String {
    match Problem::decode(status.details()) {
        Ok(problem) if problem.places.len() > 1 => {
            let places = problem.places.iter().map(|place| {
                format!("{}:{}:{}: {}: {}", place.file, place.line, place.column, place.field, place.message)
            });
            places.collect::<Vec<_>>().join("\n")
        }
        _ => status.message().to_owned(),
    }
}
