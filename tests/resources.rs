//! Resource files: applied as a whole or not at all, compared, exported, checked; and errors that name file, line and field.

use tests::{
    Dev,
    client::get,
    json::{find, list, number, text},
};

/// One cluster for the file, used by one test: what it prunes and re-applies would disturb others.
#[test]
fn a_file_is_applied_compared_and_exported() {
    let dev = Dev::start();
    let ctl = dev.ctl();
    let echo = format!("http://{}", dev.ready().echo.as_deref().unwrap());
    let file = crate::shared::Corner::resources("shop", &echo);

    // diff says what apply would do, and does nothing.
    let before = number(&ctl.json(["cluster", "status"]), "revision");
    let diff = ctl.run_file("diff", &file, &[]).done();
    let changes = list(&diff, "changes");
    let route = changes.iter().find(|change| change["name"] == "shop-open").expect("the route is new");
    assert_eq!((text(route, "kind"), text(route, "action")), ("route", "create"), "{diff}");
    assert_eq!(number(&ctl.json(["cluster", "status"]), "revision"), before);

    // One revision for the whole file.
    let applied = ctl.apply(&file);
    assert_eq!(number(&applied, "revision"), before + 1, "{applied}");
    assert_eq!(list(&applied, "changes").len(), changes.len());

    // The same file again, and what is exported, change nothing.
    let again = ctl.apply(&file);
    assert!(list(&again, "changes").is_empty(), "{again}");
    let exported = ctl.run(["export"]);
    assert_eq!(exported.code, 0, "{exported}");
    assert!(list(&ctl.run_file("diff", &exported.stdout, &[]).done(), "changes").is_empty());
    assert!(list(&ctl.run_file("diff", &exported.stdout, &["--prune"]).done(), "changes").is_empty());
    let no_op = ctl.apply(&exported.stdout);
    assert!(list(&no_op, "changes").is_empty(), "export | apply is a no-op: {no_op}");
    assert_eq!(number(&ctl.json(["cluster", "status"]), "revision"), before + 1);
    ctl.run_file("validate", &exported.stdout, &[]).done();

    // JSON is a resource file as well.
    let json = format!(r#"{{"upstreams": {{"from-json": {{"targets": ["{echo}"]}}}}}}"#);
    assert_eq!(list(&ctl.apply(&json), "changes").len(), 1);

    // What a file does not name stays, unless it is pruned.
    let edited = file.replace("methods: [GET, POST]", "methods: [GET]");
    let updated = ctl.apply(&edited);
    let [change] = list(&updated, "changes") else { panic!("one change: {updated}") };
    assert_eq!((text(change, "name"), text(change, "action")), ("shop-guarded", "update"));
    let pruned = ctl.run_file("apply", &file, &["--prune", "--yes"]).done();
    let gone = find(list(&pruned, "changes"), "name", "from-json").expect("pruned");
    assert_eq!(text(gone, "action"), "delete");
    assert_eq!(list(&ctl.json(["upstreams", "list"]), "").len(), 1);
    for id in 1..=3 {
        dev.client(id).send(get("/open/x").host("shop.test")).ok();
    }

    // A dry run does nothing.
    let dry = ctl.run_file("apply", "{}", &["--prune", "--dry-run"]).done();
    assert!(!list(&dry, "changes").is_empty(), "{dry}");
    dev.client(1).send(get("/open/x").host("shop.test")).ok();

    // What is referred to cannot go.
    let refused = ctl.run_json(["upstreams", "delete", "shop"]).refused(1);
    assert!(text(&refused, "message").contains("shop"), "{refused}");
    assert_eq!(ctl.json(["routes", "get", "shop-open"])["name"], "shop-open");
    ctl.run_json(["routes", "get", "nothing"]).refused(1);

    // A stale revision is refused, and nothing of the file is applied.
    let revision = number(&ctl.json(["cluster", "status"]), "revision");
    let stale = (revision - 1).to_string();
    let other = file.replace("shop", "other");
    ctl.run_file("apply", &other, &["--if-revision", &stale]).refused(5);
    dev.client(1).send(get("/open/x").host("other.test")).problem(404, "no-route");
}
