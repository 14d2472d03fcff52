//! The admin API: one file a noun, the same nouns as in the command line, the protocol and the replicated state. A service
//! turns a request into a command (everything random or secret is made and hashed here), proposes it, and says what came
//! of it. Who calls has been proved by the cluster port, and whether the role reaches by `role`; the replicated state
//! checks the role again.

mod audit;
mod ca;
mod cluster;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keys;
mod members;
mod operators;
pub mod problem;
mod resources;
pub mod role;
mod snapshots;
mod usage;
mod write;

pub(crate) use operators::admins_end;

use crate::enrol::Registrar;
use machine::{Name, View, operator::Role};
use problem::Problem;
use proto::admin::{
    audit_server::AuditServer, ca_server::CaServer, cluster_server::ClusterServer, keys_server::KeysServer,
    members_server::MembersServer, operators_server::OperatorsServer, resources_server::ResourcesServer,
    snapshots_server::SnapshotsServer,
};
use std::sync::Arc;
use tonic::{Code, Request, service::Routes};

/// Bytes of a request: a resource file, or an import.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The operator who calls: in the extensions of every admin request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the registry names it.
    pub name: Name,
    /// What it may do.
    pub role: Role,
}

/// What every service works on. Clones are the same.
#[derive(Clone)]
struct Admin {
    registrar: Registrar,
}

impl Admin {
    const fn raft(&self) -> &raft::Handle {
        self.registrar.raft()
    }

    /// Everything that was acknowledged before now.
    async fn read(&self) -> Result<Arc<View>, Problem> {
        Ok(self.raft().read().await?)
    }
}

/// Adds the admin services of a node.
#[must_use]
pub fn add_services(routes: Routes, registrar: &Registrar) -> Routes {
    let admin = Admin { registrar: registrar.clone() };
    routes
        .add_service(ClusterServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(MembersServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(OperatorsServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(CaServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(SnapshotsServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(KeysServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ResourcesServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(AuditServer::new(admin).max_decoding_message_size(REQUEST_BYTES_MAX))
}

/// The operator who calls.
fn caller<T>(request: &Request<T>) -> Result<Caller, Problem> {
    request
        .extensions()
        .get()
        .cloned()
        .ok_or_else(|| Problem::new(Code::Unauthenticated, "unauthenticated", "this needs an operator certificate"))
}

/// A name that a client sent.
fn name(text: &str) -> Result<Name, Problem> {
    Name::new(text).map_err(|error| Problem::invalid(format!("{text:?}: {error}")))
}

/// Runs what takes a while on a thread where that does not matter.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::internal("this node could not do it: its log says why"))
}
