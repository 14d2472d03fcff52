//! The admin API: one file a noun, the same nouns as in the command line, the protocol and the replicated state. A service
//! turns a request into a command (everything random or secret is made and hashed here), proposes it, and says what came
//! of it. Who calls has been proved by the cluster port, and whether the role reaches by `role`; the replicated state
//! checks the role again.

pub mod problem;
pub mod role;

use machine::{Name, operator::Role};

/// The operator who calls: in the extensions of every admin request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the registry names it.
    pub name: Name,
    /// What it may do.
    pub role: Role,
}
