//! The configuration that `quorate dev` applies if it is given none: enough to see a key accepted, refused and revoked.

/// Who calls in the example.
pub(super) const CONSUMER: &str = "demo";
/// A path that the key opens.
pub(super) const GUARDED_PATH: &str = "/echo/hello";
/// A path that is open.
pub(super) const OPEN_PATH: &str = "/open";

/// The resource file.
pub(super) fn resources(upstream: &str) -> String {
    format!(
        r#"# The example configuration of `quorate dev`.
upstreams:
  echo: {{ targets: ["{upstream}"] }}
consumers:
  {CONSUMER}: {{ roles: [reader] }}
routes:
  echo: {{ paths: ["/echo", "/echo/{{*rest}}"], upstream: echo, authenticate: [api_key] }}
  open: {{ paths: ["{OPEN_PATH}"], upstream: echo, authenticate: [none], policies: off }}
policies:
  readers: |
    permit(principal in Role::"reader", action, resource == Route::"echo");
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_in_order() {
        let file = crate::resource::parse("example.yaml", &resources("http://127.0.0.1:1")).unwrap();
        let plan = crate::resource::plan(&machine::Registry::default(), &file, false).unwrap();
        assert_eq!(plan.listing.len(), 5);
        assert_eq!(plan.warnings, Vec::new());
    }
}
