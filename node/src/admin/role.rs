//! Which role each admin method needs: one table, so that it can be read at a glance.

use machine::operator::Role;

/// The least role that may call a method, by its path; `None` for a method that does not exist.
#[must_use]
pub fn needed(path: &str) -> Option<Role> {
    let method = path.strip_prefix("/quorate.admin.v1.")?;
    Some(match method {
        "Cluster/Status"
        | "Cluster/Clock"
        | "Cluster/GetSettings"
        | "Members/List"
        | "Operators/List"
        | "Ca/Status"
        | "Keys/List"
        | "Keys/Show"
        | "Resources/Validate"
        | "Resources/Export"
        | "Resources/List"
        | "Resources/Get"
        | "Resources/Explain"
        | "Resources/LimitUsage"
        | "Audit/Read" => Role::Viewer,

        "Keys/Create"
        | "Keys/Rotate"
        | "Keys/Revoke"
        | "Keys/Import"
        | "Resources/Apply"
        | "Resources/Delete"
        | "Resources/SetConsumerEnabled" => Role::Operator,

        "Cluster/TransferLeader"
        | "Cluster/CreateJoinToken"
        | "Cluster/PutSettings"
        | "Cluster/FinalizeUpgrade"
        | "Members/Promote"
        | "Members/Demote"
        | "Members/Remove"
        | "Operators/Create"
        | "Operators/Revoke"
        | "Ca/Rotate"
        | "Ca/Finish"
        // A snapshot holds the hashes of secrets.
        | "Snapshots/Save" => Role::Admin,

        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method of the protocol files has a line in the table.
    #[test]
    fn no_method_is_missing() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/admin/v1");
        let mut methods = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut service = String::new();
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("service ") {
                    service = rest.split_whitespace().next().unwrap().to_owned();
                }
                if let Some(rest) = line.trim_start().strip_prefix("rpc ") {
                    let method = rest.split('(').next().unwrap();
                    assert!(needed(&format!("/quorate.admin.v1.{service}/{method}")).is_some(), "{service}/{method}");
                    methods += 1;
                }
            }
        }
        assert!(methods > 30);
    }

    #[test]
    fn what_does_not_exist_is_nobodys() {
        assert_eq!(needed("/quorate.admin.v1.Keys/Nothing"), None);
        assert_eq!(needed("/quorate.peer.v1.Raft/Append"), None);
    }
}
