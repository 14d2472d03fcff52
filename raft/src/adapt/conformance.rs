//! openraft's own conformance suite over our log and state machine, on real files.

use crate::{
    adapt::{log::Log, machine::Machine},
    digest::Marks,
    start::Folders,
    types::TypeConfig,
    vault::Vault,
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::sync::Arc;
use tempfile::TempDir;

struct OnDisk;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let folders =
            Folders { log: path.join("log"), checkpoint: path.join("checkpoint"), snapshots: path.join("snapshots") };
        let log = Log::new(storage::Log::open(&folders.log, storage::LogSettings::default()).unwrap());
        let (vault, applied) = Vault::open(&folders, &crate::Ground::System).unwrap();
        Ok((dir, log, Machine::new(&applied, Arc::new(vault), Arc::new(Marks::new(0)))))
    }
}

#[test]
fn log_and_machine_keep_openrafts_contract() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(OnDisk)).unwrap();
}
