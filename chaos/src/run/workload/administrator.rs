//! Somebody who changes things all the time, through any node: makes, rotates and revokes keys; writes, deletes and reads what others
//! write and read too; edits what somebody else may have edited since; and edits a limit.

use super::{
    attempt::{Asker, Wish, timed},
    rules,
};
use crate::history::{Operation, REVOKED, Version};
use proto::admin::{
    ApplyReply, ApplyRequest, CreateKeyReply, CreateKeyRequest, DeleteResourceRequest, GetResourceRequest, KeyInfo,
    ResourceFile, ResourceInfo, RevokeKeyRequest, RotateKeyRequest, SetConsumerEnabledRequest, ShowKeyRequest,
    WriteResult, keys_client::KeysClient, resources_client::ResourcesClient,
};
use std::{sync::atomic::Ordering, time::Duration};

/// Keys that live at the same time.
const KEYS_MAX: usize = 60;
/// Between two things that are done.
const PAUSE_MS: (u64, u64) = (20, 250);

impl Asker<'_> {
    /// Does one thing after another until the workload stops.
    pub(super) fn work(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(self.random.between(PAUSE_MS.0, PAUSE_MS.1)));
            match self.random.between(0, 99) {
                0..20 => self.create_key(),
                20..28 => self.rotate_key(),
                28..42 => self.revoke_key(),
                42..50 => self.show_key(),
                50..64 => self.put(),
                64..78 => self.look(),
                78..83 => self.delete(),
                83..97 => self.toggle(),
                // One alone edits it: whose edit came later would not be known.
                _ if self.number == 0 => self.edit_limit(),
                _ => self.look(),
            }
        }
    }

    /// Makes a key.
    pub(crate) fn create_key(&mut self) {
        let shared = self.shared;
        if shared.credentials.keys().iter().filter(|key| !key.ends).count() >= KEYS_MAX {
            return;
        }
        let number = shared.next_key.fetch_add(1, Ordering::Relaxed);
        let name = format!("k{number}");
        let rotates = number % 3 == 2;
        let consumer =
            usize::try_from(number % 4).ok().and_then(|place| rules::CONSUMERS.get(place)).copied().unwrap_or("c0");
        let operation = Operation::Create { object: format!("key/{name}"), value: "active".to_owned() };
        let wish = Wish { operation, ends: Vec::new(), audit: None };
        // Who tries again may be given a secret by a rotation: that is counted as well.
        let audit = |made: &CreateKeyReply| Some(("key.create".to_owned(), made.id.clone()));
        let made = self.write_named(
            wish,
            |made: &CreateKeyReply| made.result.as_ref(),
            audit,
            async |channel, write| {
                let message = CreateKeyRequest {
                    write: Some(write),
                    consumer: consumer.to_owned(),
                    name: name.clone(),
                    ..CreateKeyRequest::default()
                };
                KeysClient::new(channel).create(timed(message)).await
            },
        );
        if let (Some(made), _) = made {
            shared.credentials.made(&shared.recorder, &name, &made.id, consumer, rotates, &made.key);
        }
    }

    fn rotate_key(&mut self) {
        let shared = self.shared;
        let Some(key) = shared.credentials.pick(&mut self.random, Some(true), true) else { return };
        let value = format!("{}#{}", key.name, key.secrets.len() + 1);
        let operation = Operation::Change { object: format!("secret/{}", key.name), value, expected: None };
        let ends = key.secrets.last().map(|shown| shown.name.clone()).into_iter().collect();
        let wish = Wish { operation, ends, audit: Some(("key.rotate".to_owned(), key.id.clone())) };
        let made = self.write(
            wish,
            |made: &CreateKeyReply| made.result.as_ref(),
            async |channel, write| {
                let message = RotateKeyRequest { write: Some(write), id: key.id.clone(), overlap_ms: 0 };
                KeysClient::new(channel).rotate(timed(message)).await
            },
        );
        // Otherwise nobody knows which secret it has: it is left alone from now on.
        if let (Some(made), _) = made {
            shared.credentials.rotated(&shared.recorder, &key.name, &made.consumer, &made.key);
            if let Some(key) = shared.credentials.keys().iter_mut().find(|one| one.name == key.name) {
                key.ends = false;
            }
        }
    }

    fn revoke_key(&mut self) {
        let Some(key) = self.shared.credentials.pick(&mut self.random, None, true) else { return };
        let object = format!("key/{}", key.name);
        let operation = Operation::Change { object, value: REVOKED.to_owned(), expected: None };
        let ends = key.secrets.iter().map(|shown| shown.name.clone()).collect();
        let wish = Wish { operation, ends, audit: Some(("key.revoke".to_owned(), key.id.clone())) };
        self.write(
            wish,
            |result: &WriteResult| Some(result),
            async |channel, write| {
                KeysClient::new(channel)
                    .revoke(timed(RevokeKeyRequest { write: Some(write), id: key.id.clone() }))
                    .await
            },
        );
    }

    fn show_key(&mut self) {
        let keys: Vec<_> = self.shared.credentials.keys().iter().filter(|key| !key.rotates).cloned().collect();
        if let Some(key) = self.random.pick(&keys) {
            self.read_key(&key.name, &key.id);
        }
    }

    /// Reads a key whose secret is never replaced.
    pub(crate) fn read_key(&mut self, name: &str, id: &str) {
        let version = |key: &KeyInfo| Some(Version { revision: key.revision, value: key.state.clone() });
        self.read(&format!("key/{name}"), version, async |channel| {
            KeysClient::new(channel).show(timed(ShowKeyRequest { id: id.to_owned() })).await
        });
    }

    fn register(&mut self) -> &'static str {
        self.random.pick(&rules::REGISTERS).copied().unwrap_or("reg0")
    }

    fn put(&mut self) {
        let name = self.register();
        let value = format!("{}-{}", self.number, self.random.between(0, u64::from(u32::MAX)));
        let text = format!("consumers: {{ {name}: {{ roles: [register], held: \"{value}\" }} }}\n");
        let operation = Operation::Put { object: format!("consumer/{name}"), value, expected: None };
        self.apply(operation, &text);
    }

    fn apply(&mut self, operation: Operation, text: &str) -> (bool, u64) {
        let wish = Wish { operation, ends: Vec::new(), audit: None };
        let (answer, began_us) = self.write(
            wish,
            |reply: &ApplyReply| reply.result.as_ref(),
            async |channel, write| {
                let file = Some(ResourceFile { name: "edit.yaml".to_owned(), text: text.to_owned() });
                let message = ApplyRequest { write: Some(write), file, prune: false, dry_run: false };
                ResourcesClient::new(channel).apply(timed(message)).await
            },
        );
        (answer.is_some(), began_us)
    }

    fn look(&mut self) {
        let name = self.register();
        self.read_register(name);
    }

    /// Reads a register.
    pub(crate) fn read_register(&mut self, name: &str) -> Option<Version> {
        let held = |info: &ResourceInfo| {
            let document: serde_json::Value = serde_json::from_str(&info.json).ok()?;
            Some(Version { revision: info.revision, value: document["held"].as_str()?.to_owned() })
        };
        self.get("consumer", name, held)
    }

    /// Reads a flag.
    pub(crate) fn read_flag(&mut self, name: &str) -> Option<Version> {
        self.get("consumer", name, |info| Some(Version { revision: info.revision, value: flag(info.enabled) }))
    }

    /// Reads the limit that is edited.
    pub(crate) fn read_limit(&mut self) -> Option<Version> {
        let rate = |info: &ResourceInfo| {
            let document: serde_json::Value = serde_json::from_str(&info.json).ok()?;
            Some(Version { revision: info.revision, value: document["rate"].as_str()?.to_owned() })
        };
        self.get("limit", rules::EDITED, rate)
    }

    fn get(&mut self, kind: &str, name: &str, version: impl Fn(&ResourceInfo) -> Option<Version>) -> Option<Version> {
        self.read(&format!("{kind}/{name}"), version, async |channel| {
            let message = GetResourceRequest { kind: kind.to_owned(), name: name.to_owned() };
            ResourcesClient::new(channel).get(timed(message)).await
        })
    }

    fn delete(&mut self) {
        let name = self.register();
        // Half of the time only what was read.
        let expected = if self.random.chance(500) {
            let Some(version) = self.read_register(name) else { return };
            Some(version.revision)
        } else {
            None
        };
        let operation = Operation::Delete { object: format!("consumer/{name}"), expected };
        let wish = Wish { operation, ends: Vec::new(), audit: None };
        self.write(
            wish,
            |result: &WriteResult| Some(result),
            async |channel, write| {
                let message =
                    DeleteResourceRequest { write: Some(write), kind: "consumer".to_owned(), name: name.to_owned() };
                ResourcesClient::new(channel).delete(timed(message)).await
            },
        );
    }

    /// Reads a flag, and turns it unless somebody has since.
    fn toggle(&mut self) {
        let name = self.random.pick(&rules::FLAGS).copied().unwrap_or("flag0");
        let Some(version) = self.read_flag(name) else { return };
        let enabled = version.value != flag(true);
        let object = format!("consumer/{name}");
        let operation = Operation::Change { object, value: flag(enabled), expected: Some(version.revision) };
        let action = if enabled { "consumer.enable" } else { "consumer.disable" };
        let wish = Wish { operation, ends: Vec::new(), audit: Some((action.to_owned(), name.to_owned())) };
        self.write(
            wish,
            |result: &WriteResult| Some(result),
            async |channel, write| {
                let message = SetConsumerEnabledRequest { write: Some(write), name: name.to_owned(), enabled };
                ResourcesClient::new(channel).set_consumer_enabled(timed(message)).await
            },
        );
    }

    fn edit_limit(&mut self) {
        let rate = self.random.between(5, 40);
        let operation =
            Operation::Put { object: format!("limit/{}", rules::EDITED), value: format!("{rate}/s"), expected: None };
        let (known, began_us) = self.apply(operation, &rules::edited_file(rate));
        self.shared.recorder.record(rules::edited_event(rate, began_us, known));
    }
}

fn flag(enabled: bool) -> String {
    if enabled { "enabled" } else { "disabled" }.to_owned()
}

/// What a run made: every object that was ever written, for its last reading.
impl Asker<'_> {
    /// Reads every object that was ever written.
    pub(crate) fn read_everything(&mut self) {
        let keys: Vec<_> = self.shared.credentials.keys().iter().filter(|key| !key.rotates).cloned().collect();
        for key in keys {
            self.read_key(&key.name, &key.id);
        }
        for name in rules::REGISTERS {
            self.read_register(name);
        }
        for name in rules::FLAGS {
            self.read_flag(name);
        }
        self.read_limit();
    }
}
