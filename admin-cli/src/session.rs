//! What every verb gets: the client, the context it came from, and how to speak to the person.

use crate::client::{Client, Wishes};
use crate::command_line::Global;
use crate::confirm;
use crate::context::Context;
use crate::exit::Failure;
use crate::render::Printer;

/// One invocation, ready to ask the cluster.
pub struct Session {
    /// Speaks to the cluster.
    pub client: Client,
    /// Where the cluster is and who asks.
    pub context: Context,
    /// Prints.
    pub printer: Printer,
    /// Do not ask before something is destroyed.
    pub yes: bool,
}

impl Session {
    /// Reads the context and gets ready; connects when something is asked.
    pub fn open(global: Global, printer: Printer) -> Result<Self, Failure> {
        let context = Context::load(global.context.as_deref())?;
        let wishes = Wishes { if_revision: global.if_revision, no_wait: global.no_wait };
        let client = Client::new(&context, global.endpoints, global.timeout, wishes)?;
        Ok(Self { client, context, printer, yes: global.yes })
    }

    /// Asks the person, if there is one; the time that the answer takes is not the command's.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        confirm::confirm(self.yes, &self.printer, question)?;
        self.client.restart();
        Ok(())
    }
}
