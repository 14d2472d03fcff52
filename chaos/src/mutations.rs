//! Bugs that can be put back into the program under test, each with the invariant that must find it and a run in which it shows: the
//! proof that a run can fail. The bugs themselves are in the product, in builds that tests alone have (`raft/src/mutation.rs`).

use crate::run::report::say;
use anyhow::{Context as _, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// A bug, and the run that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// As `QUORATE_MUTATION` names it.
    pub bug: &'static str,
    /// The invariant that must find it.
    pub found_by: &'static str,
    /// The faults in which it shows.
    pub faults: &'static str,
    /// How long they go on.
    pub seconds: u64,
}

const fn proof(bug: &'static str, found_by: &'static str, faults: &'static str, seconds: u64) -> Proof {
    Proof { bug, found_by, faults, seconds }
}

/// Every bug.
pub const PROOFS: [Proof; 16] = [
    proof("ignores-the-lease", "revoked_stays_revoked", "cut-leader,cut-halves,pause-long", 40),
    proof("one-token-too-many", "never_overspend", "none", 15),
    proof("acknowledges-before-the-fence", "authority_is_exclusive_of_stale", "none", 20),
    proof("enforced-before-published", "authority_is_exclusive_of_stale", "none", 20),
    proof("skips-states", "revoked_stays_revoked", "none", 20),
    proof("stale-reads", "linearizable_admin", "cut-leader,cut-halves,cut-pair", 40),
    proof("acknowledges-before-the-commit", "acked_survives", "cut-leader,kill-leader", 45),
    proof("applies-in-its-own-way", "same_index_same_state", "none", 15),
    proof("skips-an-entry-after-a-start", "same_index_same_state", "kill", 40),
    proof("forgets-requests", "linearizable_admin", "kill-leader,cut-clients,pause-leader", 45),
    proof("logs-secrets", "no_secret_in_logs", "none", 15),
    proof("says-it-enforces-the-log", "applied_monotonic", "none", 15),
    proof("grants-without-a-majority", "revoked_stays_revoked", "cut-leader,cut-halves", 40),
    proof("short-leases", "keeps_serving", "none", 15),
    proof("lease-before-the-state", "authority_is_exclusive_of_stale", "pause-long,cut-halves", 40),
    proof("stays-alone", "keeps_serving", "leader-storm,kill-leader", 30),
];

/// Puts bugs back one after another, and says of each whether its invariant found it: in one of so many seeds, for what the machine's
/// scheduler does is not repeated. Whether all were found.
///
/// # Errors
/// There is no such bug, or this machine fails.
pub fn prove(quorate: &Path, only: &[String], first_seed: u64, seeds: u64) -> anyhow::Result<bool> {
    for name in only {
        ensure!(PROOFS.iter().any(|proof| proof.bug == name), "no bug {name:?}");
    }
    let mut missed = Vec::new();
    for proof in PROOFS.iter().filter(|proof| only.is_empty() || only.iter().any(|name| name == proof.bug)) {
        if !is_found(proof, quorate, first_seed, seeds)? {
            missed.push(proof.bug);
        }
    }
    if !missed.is_empty() {
        say(&format!("not found: {}", missed.join(", ")));
    }
    Ok(missed.is_empty())
}

fn is_found(proof: &Proof, quorate: &Path, first_seed: u64, seeds: u64) -> anyhow::Result<bool> {
    let Proof { bug, found_by, faults, seconds } = proof;
    let mut folder = String::new();
    for seed in first_seed..first_seed.saturating_add(seeds) {
        folder = format!("{}/quorate-mutation-{bug}-{seed}-{}", std::env::temp_dir().display(), std::process::id());
        fs::create_dir_all(&folder)?;
        let began = Instant::now();
        let output = Command::new(std::env::current_exe()?)
            .args(["run", "--seed", &seed.to_string(), "--seconds", &seconds.to_string(), "--faults", faults])
            .args(["--folder", &folder, "--quorate"])
            .arg(quorate)
            .env("QUORATE_MUTATION", bug)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("a run")?;
        let said = String::from_utf8_lossy(&output.stdout);
        // As reports print verdicts.
        let red: Vec<&str> = said.lines().filter(|line| line.contains(" VIOLATED at ")).map(str::trim_start).collect();
        let names: Vec<&str> = red.iter().filter_map(|line| line.split_whitespace().next()).collect();
        let verdict = red.iter().find(|line| line.split_whitespace().next() == Some(*found_by));
        let found = verdict.map_or_else(|| "NOT RED".to_owned(), |line| line.chars().take(200).collect());
        let others: Vec<&str> = names.into_iter().filter(|name| name != found_by).collect();
        let took = began.elapsed().as_secs();
        say(&format!("{bug}, seed {seed}, {took} s: {found}; also red: [{}]", others.join(", ")));
        if verdict.is_some() {
            fs::remove_dir_all(&folder)?;
            return Ok(true);
        }
        fs::write(format!("{folder}/report"), &*said)?;
    }
    say(&format!("{bug}: the last of these runs is in {folder}"));
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A typo would be a run that finds nothing, or one that fails for its name.
    #[test]
    fn bugs_and_invariants_are_there() {
        let invariants: Vec<_> = crate::invariant::all().iter().map(|invariant| invariant.name()).collect();
        let product = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../raft/src/mutation.rs")).unwrap();
        for Proof { bug, found_by, faults, .. } in PROOFS {
            assert!(invariants.contains(&found_by), "{found_by}");
            assert!(product.contains(&format!("\"{bug}\"")), "{bug}");
            for name in faults.split(',').filter(|name| *name != "none") {
                assert!(crate::run::fault::ALL.iter().any(|kind| kind.name.starts_with(name)), "{name}");
            }
        }
        assert_eq!(product.matches("(Self::").count(), PROOFS.len(), "every bug of the product is proved here");
    }
}
