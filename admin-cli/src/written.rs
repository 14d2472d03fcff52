//! What every write answers with: the revision, what each node said about it, and how long it took.

use crate::exit::Failure;
use crate::render::{Answer, Block};
use proto::admin::WriteResult;
use serde::Serialize;

/// The part of a write's answer that is the same for all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The cluster's revision with the write in it.
    pub revision: u64,
    fence: Vec<FenceNode>,
    elapsed_ms: u64,
}

#[derive(Clone, Debug, Serialize)]
struct FenceNode {
    node: u64,
    state: String,
}

impl Written {
    /// From an answer, which has to have one.
    pub fn from_answer(result: Option<WriteResult>) -> Result<Self, Failure> {
        result.map(Self::from).ok_or_else(|| Failure::malformed("result of the write"))
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        let took = format!("({} ms)", self.elapsed_ms);
        if self.fence.is_empty() {
            return format!("Revision {}, committed; not waited for the nodes {took}.", self.revision);
        }
        let applied = self.fence.iter().filter(|node| node.state == "applied").count();
        if applied == self.fence.len() {
            let nodes = if applied == 1 { "the one node".into() } else { format!("all {applied} nodes") };
            return format!("Revision {}, enforced by {nodes} {took}.", self.revision);
        }
        let without = match self.fence.iter().filter(|node| node.state == "expired").count() {
            0 => String::new(),
            1 => "; one without authority admits nothing until it has caught up".to_owned(),
            more => format!("; {more} without authority admit nothing until they have caught up"),
        };
        format!("Revision {}, enforced by {applied} of {} nodes{without} {took}.", self.revision, self.fence.len())
    }

    /// What people must know about the nodes that do not enforce it.
    pub fn notices(&self) -> Vec<String> {
        self.fence
            .iter()
            .filter_map(|node| {
                let what = match node.state.as_str() {
                    "applied" | "expired" => return None,
                    "pending" => {
                        "has not confirmed in time and may still decide by the state before; \
                         `quoratectl cluster status` shows how far it is"
                    }
                    "serving_isolated" => {
                        "is cut off, and may still serve routes with `when_isolated: serve` by the state before"
                    }
                    other => return Some(format!("warning: node {} answered `{other}`", node.node)),
                };
                Some(format!("warning: node {} {what}", node.node))
            })
            .collect()
    }

    /// What each node answered.
    pub fn table(&self) -> Block {
        let rows = self.fence.iter().map(|node| vec![node.node.to_string(), node.state.clone()]).collect();
        Block::Table(vec!["NODE", "STATE"], rows, "")
    }

    /// The whole answer of a write that has nothing else to say.
    pub fn answer(self, done: impl Into<String>) -> Answer {
        let people = vec![Block::Text(done.into()), Block::Text(self.sentence())];
        let notices = self.notices();
        Answer::new(self, people).with_notices(notices)
    }
}

impl From<WriteResult> for Written {
    fn from(result: WriteResult) -> Self {
        let fence = result.fence.into_iter().map(|node| FenceNode { node: node.node, state: node.state }).collect();
        Self { revision: result.revision, fence, elapsed_ms: result.elapsed_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin;

    fn written(states: &[&str]) -> Written {
        let fence =
            (1..).zip(states).map(|(node, state)| admin::FenceNode { node, state: (*state).to_owned() }).collect();
        WriteResult { revision: 7, fence, elapsed_ms: 3 }.into()
    }

    #[test]
    fn the_sentence_says_who_enforces_it() {
        assert_eq!(written(&[]).sentence(), "Revision 7, committed; not waited for the nodes (3 ms).");
        assert_eq!(written(&["applied"; 3]).sentence(), "Revision 7, enforced by all 3 nodes (3 ms).");
        assert_eq!(written(&["applied", "pending"]).sentence(), "Revision 7, enforced by 1 of 2 nodes (3 ms).");
        assert_eq!(
            written(&["applied", "expired", "pending"]).sentence(),
            "Revision 7, enforced by 1 of 3 nodes; one without authority admits nothing until it has caught up (3 ms)."
        );
    }

    #[test]
    fn only_nodes_that_may_decide_otherwise_are_worth_a_warning() {
        assert!(written(&["applied", "expired"]).notices().is_empty());
        assert_eq!(
            written(&["applied", "pending", "expired", "serving_isolated"]).notices(),
            [
                "warning: node 2 has not confirmed in time and may still decide by the state before; \
             `quoratectl cluster status` shows how far it is",
                "warning: node 4 is cut off, and may still serve routes with `when_isolated: serve` by the state before",
            ]
        );
    }
}
