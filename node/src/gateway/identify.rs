//! Who calls. One room for each method; this file chooses the room that the route names.

pub(crate) mod api_key;

use super::problem::Refusal;
use crate::resource::{compile::CompiledRoute, document::Authenticate};
use http::HeaderMap;
use machine::{
    View, Wall,
    consumer::Consumer,
    key::{Key, Secret},
};
use std::sync::Arc;

/// Where a credential stood, so that it can be kept from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialPlace {
    Nowhere,
    /// `X-Api-Key`.
    ApiKey,
    /// `Authorization: Bearer`.
    Authorization,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) key: Key,
    /// The secret that was shown: of the two that a rotation leaves in force, the one that this caller has.
    pub(crate) shown: Secret,
}

/// Finds out who calls. Nobody, on a route that is open.
pub(crate) fn identify(
    route: &CompiledRoute,
    view: &View,
    headers: &HeaderMap,
    now: impl FnOnce() -> Wall,
) -> Result<(Option<Caller>, CredentialPlace), Refusal> {
    match route.authenticate {
        Authenticate::ApiKey => api_key::identify(view, headers, now).map(|(caller, place)| (Some(caller), place)),
        Authenticate::Nobody => Ok((None, api_key::place_of_ours(headers))),
    }
}
