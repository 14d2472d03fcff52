//! Who may administer. The client makes the key pair; here its certificate is signed, or looked at if it was signed
//! outside, and made known.

use super::{Admin, caller, cluster::now, name, problem::Problem, write::Write};
use crate::{
    enrol::{Registrar, authorities_pem, others},
    pki::{OPERATOR_LIFE, OPERATOR_LIFE_MAX, PEM_BYTES_MAX, authority::Signed, outside::Holder},
};
use machine::{
    Command, Name, Registry, Wall,
    operator::{Operator, Role},
};
use proto::admin::{
    CreateOperatorReply, CreateOperatorRequest, ListOperatorsReply, ListOperatorsRequest, OperatorInfo,
    RevokeOperatorRequest, WriteResult, operators_server::Operators,
};
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Operators for Admin {
    async fn create(&self, request: Request<CreateOperatorRequest>) -> Result<Response<CreateOperatorReply>, Status> {
        let caller = caller(&request)?;
        let mut request = request.into_inner();
        let write = Write::new(request.write.take())?;
        let name = name(&request.name)?;
        let role = match request.role.as_str() {
            "viewer" => Role::Viewer,
            "operator" => Role::Operator,
            "admin" => Role::Admin,
            other => {
                return Err(
                    Problem::invalid(format!("{other:?} is not a role: there are viewer, operator and admin")).into()
                );
            }
        };
        let signed = if request.certificate_pem.is_empty() {
            self.signed_here(&request, &name).await?
        } else {
            self.signed_outside(&request.certificate_pem, &name).await?
        };
        let command = Command::CreateOperator {
            name: name.clone(),
            role,
            certificate_sha256: signed.sha256,
            not_after: Wall(signed.not_after_ms),
        };
        let done = self.write(&caller, &write, command).await?;
        let view = self.applied(done.index).await?;
        let known = view.registry.operators.get(&name);
        if known.is_none_or(|operator| operator.certificate_sha256 != signed.sha256) {
            // A retry of a request whose answer was lost: the certificate of then is gone, and signatures differ.
            return Err(Problem::refused(
                "unknown_secret",
                format!("an earlier try of this request made operator {name}, and its certificate was lost on the way"),
            )
            .hint(format!("revoke {name}, and create another operator"))
            .into());
        }
        let mut addresses: Vec<String> =
            view.registry.members.get(&self.registrar.node).map(|member| member.address.clone()).into_iter().collect();
        addresses.extend(others(&view, self.registrar.node).map(|member| member.address.clone()));
        Ok(Response::new(CreateOperatorReply {
            result: Some(done.result()),
            certificate_pem: signed.pem,
            authorities_pem: Registrar::anchors_pem(&view).map_err(|error| Problem::internal(error.to_string()))?,
            addresses,
            expires_at_ms: signed.not_after_ms,
        }))
    }

    async fn list(&self, _: Request<ListOperatorsRequest>) -> Result<Response<ListOperatorsReply>, Status> {
        let view = self.read().await?;
        let now = now(&view, self.raft());
        let operators = view
            .registry
            .operators
            .values()
            .map(|operator| OperatorInfo {
                name: operator.name.to_string(),
                role: operator.role.as_str().to_owned(),
                state: state(operator, now).to_owned(),
                created_at_ms: operator.created_at.0,
                expires_at_ms: operator.not_after.0,
                certificate_sha256: hex::encode(operator.certificate_sha256),
                revision: operator.revision,
            })
            .collect();
        Ok(Response::new(ListOperatorsReply { operators }))
    }

    async fn revoke(&self, request: Request<RevokeOperatorRequest>) -> Result<Response<WriteResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let command = Command::RevokeOperator { name: name(&request.name)? };
        Ok(Response::new(self.write(&caller, &write, command).await?.result()))
    }
}

impl Admin {
    /// The certificate of a new operator, by its request.
    async fn signed_here(&self, request: &CreateOperatorRequest, name: &Name) -> Result<Signed, Problem> {
        let life = match request.ttl_ms {
            0 => OPERATOR_LIFE,
            ttl_ms => Duration::from_millis(ttl_ms),
        };
        if life > OPERATOR_LIFE_MAX || life < Duration::from_secs(1) {
            return Err(Problem::invalid("an operator's certificate lasts between a second and five years"));
        }
        Ok(self.registrar.sign_operator(&request.certificate_request_pem, name, life).await?)
    }

    /// The certificate of a new operator that was signed elsewhere, by an authority that the cluster trusts.
    async fn signed_outside(&self, certificate_pem: &str, name: &Name) -> Result<Signed, Problem> {
        if certificate_pem.len() > PEM_BYTES_MAX {
            return Err(Problem::invalid("the certificate is too large"));
        }
        let view = Self::read(self).await?;
        Holder::Operator(name)
            .take(certificate_pem, None, &authorities_pem(&view), self.registrar.now_ms())
            .map_err(|error| Problem::invalid(format!("the certificate of operator {name} is of no use: {error}")))
    }
}

/// When the last certificate of an admin ends, of those that were not revoked: from then on nobody can administer.
pub(crate) fn admins_end(registry: &Registry) -> Option<Wall> {
    let admins = registry.operators.values().filter(|operator| operator.role == Role::Admin);
    admins.filter(|operator| operator.revoked_at.is_none()).map(|operator| operator.not_after).max()
}

/// As the protocol names it.
fn state(operator: &Operator, now: Wall) -> &'static str {
    if operator.revoked_at.is_some() {
        "revoked"
    } else if now >= operator.not_after {
        "expired"
    } else {
        "active"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_last_admin_in_force_counts() {
        let mut registry = Registry::default();
        assert_eq!(admins_end(&registry), None);
        let operators = [
            ("late-viewer", Role::Viewer, 900, None),
            ("revoked", Role::Admin, 800, Some(Wall(1))),
            ("early", Role::Admin, 300, None),
            ("late", Role::Admin, 500, None),
        ];
        for (name, role, not_after, revoked_at) in operators {
            let name = Name::new(name).unwrap();
            let operator = Operator {
                name: name.clone(),
                role,
                certificate_sha256: [0; 32],
                not_after: Wall(not_after),
                created_at: Wall(0),
                revoked_at,
                revision: 1,
            };
            registry.operators.insert(name, Arc::new(operator));
        }
        assert_eq!(admins_end(&registry), Some(Wall(500)));
    }
}
