//! How the clusters of these tests begin.

use machine::{Name, command::Initialize, member::MemberSpec, settings::Settings, time::Wall};

/// The instant at which they begin.
pub(crate) const START: u64 = 1_700_000_000_000;
const HOUR: u64 = 60 * 60 * 1000;

pub(crate) fn first() -> Initialize {
    Initialize {
        cluster: [7; 16],
        feature_level: 1,
        settings: Settings { audit_entries_max: 30, ..Settings::default() },
        authority_sha256: [0; 32],
        authority_pem: "pem".to_owned(),
        member: MemberSpec {
            name: Name::new("n1").unwrap(),
            address: "n1:7400".to_owned(),
            gateway_address: "n1:8080".to_owned(),
            gateway_tls_address: String::new(),
            ops_address: "n1:9400".to_owned(),
            zone: None,
            version: "0.1.0".to_owned(),
            feature_level_max: 2,
        },
        operator: Name::new("root").unwrap(),
        operator_certificate_sha256: [100; 32],
        operator_not_after: Wall(START + 24_000 * HOUR),
        join_token_hash: [0; 32],
        join_token_not_after: Wall(START + 24 * HOUR),
    }
}
