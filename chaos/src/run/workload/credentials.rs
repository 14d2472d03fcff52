//! The keys of a run: what clients may show, what should be served, and what should not any more.

use crate::{
    history::{Credential, Recorder, Secret, Text, What},
    sim::random::Random,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every key of a run. Clones are the same book.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Mutex<Vec<Key>>>);

/// A key.
#[derive(Clone, Debug)]
pub struct Key {
    /// As objects name it: `k7`.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether its secrets are replaced: then its state is not read, for it would not show that.
    pub rotates: bool,
    /// The secrets it had, the last one in force.
    pub secrets: Vec<Shown>,
    /// Whether somebody is about to end it, or has.
    pub ends: bool,
}

/// A credential as a client shows it.
#[derive(Clone)]
pub struct Shown {
    /// As requests name it: `k7#2`.
    pub name: Text,
    /// The secret.
    pub text: Arc<str>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The keys.
    pub fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a key that was made.
    pub fn made(&self, recorder: &Recorder, name: &str, id: &str, consumer: &str, rotates: bool, text: &str) {
        let first = note(recorder, name, 1, id, consumer, text);
        let key = Key { name: name.to_owned(), id: id.to_owned(), rotates, secrets: vec![first], ends: false };
        self.keys().push(key);
    }

    /// Takes in the next secret of a key.
    pub fn rotated(&self, recorder: &Recorder, name: &str, consumer: &str, text: &str) {
        let mut keys = self.keys();
        let Some(key) = keys.iter_mut().find(|key| key.name == name) else { return };
        let next = note(recorder, name, key.secrets.len() + 1, &key.id, consumer, text);
        key.secrets.push(next);
    }

    /// A key that nobody is about to end; from now on somebody is, if `ends`. A few stay: they are warm everywhere.
    pub fn pick(&self, random: &mut Random, rotates: Option<bool>, ends: bool) -> Option<Key> {
        let mut keys = self.keys();
        let fit = |key: &Key| !key.ends && rotates.is_none_or(|rotates| rotates == key.rotates);
        let mut fitting: Vec<&mut Key> =
            keys.iter_mut().skip(if ends { STAYING } else { 0 }).filter(|key| fit(key)).collect();
        let place = usize::try_from(random.next() % (fitting.len().max(1) as u64)).unwrap_or(0);
        let key = fitting.get_mut(place)?;
        key.ends |= ends;
        Some(Key::clone(key))
    }

    /// A credential to show: mostly one that lives, one of the first few half of the time; sometimes one that was ended.
    pub fn show(&self, random: &mut Random) -> Option<Shown> {
        let keys = self.keys();
        let one = |from: &[&Key], random: &mut Random| random.pick(from).copied().cloned();
        if random.chance(100) {
            let old: Vec<&Shown> = keys
                .iter()
                .flat_map(|key| {
                    let last = key.secrets.len().saturating_sub(usize::from(!key.ends));
                    key.secrets.iter().take(last)
                })
                .collect();
            // The youngest of them: that is where a mistake would show.
            let young = old.len().saturating_sub(6);
            if let Some(shown) = random.pick(old.get(young..).unwrap_or_default()) {
                return Some(Shown::clone(shown));
            }
        }
        let first = random.chance(500);
        let living: Vec<&Key> =
            keys.iter().take(if first { STAYING } else { usize::MAX }).filter(|key| !key.ends).collect();
        one(&living, random)?.secrets.pop()
    }
}

/// The first keys of a run are neither revoked nor rotated.
pub const STAYING: usize = 4;

/// A secret that the run holds from now on.
fn note(recorder: &Recorder, key: &str, number: usize, id: &str, consumer: &str, text: &str) -> Shown {
    let name: Text = format!("{key}#{number}").into();
    recorder.secret(Secret { name: format!("key {name}"), text: text.to_owned(), may_be_in: Vec::new() });
    recorder.record(What::Credential(Credential {
        name: Arc::clone(&name),
        key: key.into(),
        key_id: id.into(),
        consumer: consumer.into(),
    }));
    Shown { name, text: text.into() }
}
