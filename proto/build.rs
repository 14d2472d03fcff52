//! Compiles the protocol files with protox: no protoc is needed.

#[allow(clippy::print_stdout, reason = "how a build script talks to cargo")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "admin/v1/common.proto",
        "admin/v1/cluster.proto",
        "admin/v1/members.proto",
        "admin/v1/operators.proto",
        "admin/v1/ca.proto",
        "admin/v1/snapshots.proto",
        "admin/v1/keys.proto",
        "admin/v1/resources.proto",
        "admin/v1/audit.proto",
        "peer/v1/peer.proto",
    ];

    println!("cargo:rerun-if-changed=admin");

    println!("cargo:rerun-if-changed=peer");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".quorate.peer.v1").compile_fds(descriptors)?;
    Ok(())
}
