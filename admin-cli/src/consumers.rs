//! `quoratectl consumers`: what all resources can do, and being disabled.

use crate::command_line::ConsumersVerb;
use crate::exit::Failure;
use crate::render::Answer;
use crate::resources::{self, Kind, resources};
use crate::session::Session;
use crate::written::Written;
use proto::admin::SetConsumerEnabledRequest;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: ConsumersVerb) -> Result<Answer, Failure> {
    match verb {
        ConsumersVerb::Resource(verb) => resources::run(session, Kind::Consumer, verb).await,
        ConsumersVerb::Disable { name } => {
            session.confirm(&format!("Disable consumer {name} and refuse all its keys?"))?;
            enable(session, name, false).await
        }
        ConsumersVerb::Enable { name } => enable(session, name, true).await,
    }
}

async fn enable(session: &Session, name: String, enabled: bool) -> Result<Answer, Failure> {
    let result = session
        .client
        .write(&format!("quoratectl consumers get {name}"), async |channel, write| {
            let request = SetConsumerEnabledRequest { write: Some(write), name: name.clone(), enabled };
            resources(channel).set_consumer_enabled(request).await
        })
        .await?;
    let what = if enabled { "enabled" } else { "disabled" };
    Ok(Written::from(result).answer(format!("Consumer {name} is {what}.")))
}
