//! Checkpoints, by the bytes of sled's files: whatever happens to them, what is loaded is one of the states that were
//! committed, whole, or nothing. sled itself panics on damage, and its panics end in storage.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use storage::{Checkpoint, KeyValue};

const EDITS_MAX: usize = 16;

/// A checkpoint that was committed twice: its files, and both contents.
struct Sound {
    files: BTreeMap<PathBuf, Vec<u8>>,
    contents: [(Bytes, Vec<KeyValue>); 2],
}

/// Damage, as edits of eight bytes: what, where, and with what.
pub fn run(bytes: &[u8]) {
    let sound = sound();
    let mut files = sound.files.clone();
    for edit in bytes.chunks_exact(8).take(EDITS_MAX) {
        damage(&mut files, edit);
    }
    let dir = folder();
    for (name, content) in &files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    // A folder that cannot be opened at all says so, and the node says so with it.
    let Ok(mut checkpoint) = Checkpoint::open(dir.path()) else { return };
    let loaded = checkpoint.load(|loading| (loading.marker.clone(), loading.records.by_ref().collect::<Vec<_>>()));
    let Ok(Some(loaded)) = loaded else { return };
    assert!(sound.contents.contains(&loaded), "a checkpoint was loaded that nobody committed");
}

fn damage(files: &mut BTreeMap<PathBuf, Vec<u8>>, edit: &[u8]) {
    let &[what, which, a, b, c, d, with, length] = edit else { return };
    let count = files.len();
    let Some(name) = files.keys().nth(usize::from(which) % count.max(1)).cloned() else { return };
    let Some(content) = files.get_mut(&name) else { return };
    let at = u32::from_le_bytes([a, b, c, d]) as usize % content.len().max(1);
    let end = (at + usize::from(length)).min(content.len());
    match what % 6 {
        0 => content.get_mut(at..=at).into_iter().flatten().for_each(|byte| *byte ^= with),
        1 => content.truncate(at),
        2 => content.get_mut(at..end).into_iter().flatten().for_each(|byte| *byte = with),
        3 => content.extend(std::iter::repeat_n(with, usize::from(length))),
        4 => drop(files.remove(&name)),
        _ => {
            let to = usize::from(with) * 64 % content.len().max(1);
            let end = end.min(at + (content.len() - to));
            content.copy_within(at..end, to);
        }
    }
}

/// In memory, where there is such a place: a run writes a megabyte.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let dir = folder();
        let record = |number: u32| (number.to_be_bytes().to_vec(), vec![number as u8; number as usize * 200]);
        let before: Vec<KeyValue> = (0..60).map(record).collect();
        let mut checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
        checkpoint.replace(before.clone(), Bytes::from_static(b"before")).expect("room");
        let after: Vec<KeyValue> = (1..61).map(record).collect();
        let changes = vec![(record(0).0, None), (record(60).0, Some(record(60).1))];
        checkpoint.commit(changes, Bytes::from_static(b"after")).expect("room");
        drop(checkpoint);
        let mut files = BTreeMap::new();
        gather(dir.path(), dir.path(), &mut files);
        let contents = [(Bytes::from_static(b"before"), before), (Bytes::from_static(b"after"), after)];
        Sound { files, contents }
    })
}

fn gather(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            gather(root, &entry, files);
        } else {
            let name = entry.strip_prefix(root).expect("below the root").to_path_buf();
            files.insert(name, fs::read(&entry).expect("a file"));
        }
    }
}

/// An edit, for seeds.
#[must_use]
pub fn edit(what: u8, which: u8, at: u32, with: u8, length: u8) -> [u8; 8] {
    let [a, b, c, d] = at.to_le_bytes();
    [what, which, a, b, c, d, with, length]
}
