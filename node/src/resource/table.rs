//! Which route takes a request: the table of hosts, paths and methods.
//!
//! The most specific host decides first (a whole name, then the longest `*.domain`, then routes without hosts), but only
//! if one of its paths fits. Then the most specific path: one without a catch-all before one with, the catch-all with
//! more segments before it, and literal segments before parameters, from the left. Only then the method: a path that is
//! there for other methods is 405, it does not fall through to a vaguer path. Two routes that nothing of this tells
//! apart are ambiguous, and refused when they are applied.

use super::{
    document::Route,
    pattern::{HostPattern, PathPattern},
};
use http::Method;
use matchit::Router;
use std::collections::HashMap;

/// All routes of a node.
#[derive(Debug, Default)]
pub(crate) struct Table {
    exact: HashMap<String, HostTable>,
    /// By domain.
    below: HashMap<String, HostTable>,
    any: HostTable,
    slots: Vec<Slot>,
}

/// The routes that share a host and a shape of path.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    choices: Vec<Choice>,
}

#[derive(Debug)]
struct Choice {
    /// None for any.
    methods: Vec<Method>,
    route: usize,
    /// Which of its paths.
    path: usize,
}

#[derive(Debug, Default)]
struct HostTable {
    exact: Router<usize>,
    /// Patterns with a catch-all by the number of segments before it, the largest first.
    catch_all: Vec<(usize, Router<usize>)>,
    /// Slots by the shape of their pattern; for building alone.
    by_shape: HashMap<String, usize>,
}

/// What a lookup found.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Route(usize),
    /// The path is there, but not for this method.
    OtherMethods(&'a Slot),
    Nothing,
}

/// Two routes that take the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// The route, and which of its paths.
    pub(crate) one: (usize, usize),
    /// The one that was there before.
    pub(crate) other: (usize, usize),
}

impl Table {
    /// Builds the table. Routes are known by their place in the list; of two that overlap, the first stays.
    pub(crate) fn build<'r>(routes: impl Iterator<Item = &'r Route>) -> (Self, Vec<Overlap>) {
        let mut table = Self::default();
        let mut overlaps = Vec::new();
        for (index, route) in routes.enumerate() {
            for (place, path) in route.paths.iter().enumerate() {
                let choice = || Choice { methods: route.methods.clone(), route: index, path: place };
                if route.hosts.is_empty() {
                    overlaps.extend(table.any.insert(path, choice(), &mut table.slots));
                }
                for host in &route.hosts {
                    let host_table = match host {
                        HostPattern::Exact(name) => table.exact.entry(name.clone()).or_default(),
                        HostPattern::Below(domain) => table.below.entry(domain.clone()).or_default(),
                    };
                    overlaps.extend(host_table.insert(path, choice(), &mut table.slots));
                }
            }
        }
        overlaps.dedup();
        (table, overlaps)
    }

    /// Finds the route for a host (lower case, without port), a canonical path and a method.
    pub(crate) fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_> {
        let slot = self.slot(host, path).and_then(|slot| self.slots.get(slot));
        let Some(slot) = slot else { return Found::Nothing };
        slot.choices
            .iter()
            .find(|choice| choice.methods.is_empty() || choice.methods.contains(method))
            .map_or(Found::OtherMethods(slot), |choice| Found::Route(choice.route))
    }

    fn slot(&self, host: &str, path: &str) -> Option<usize> {
        if !self.exact.is_empty()
            && let Some(slot) = self.exact.get(host).and_then(|table| table.find(path))
        {
            return Some(slot);
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some((_, domain)) = rest.split_once('.') {
                if let Some(slot) = self.below.get(domain).and_then(|table| table.find(path)) {
                    return Some(slot);
                }
                rest = domain;
            }
        }
        self.any.find(path)
    }
}

impl Slot {
    /// What may be asked here, for `Allow`.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.choices.iter().flat_map(|choice| &choice.methods)
    }
}

impl HostTable {
    fn insert(&mut self, path: &PathPattern, choice: Choice, slots: &mut Vec<Slot>) -> Option<Overlap> {
        if let Some(slot) = self.by_shape.get(path.shape()).and_then(|slot| slots.get_mut(*slot)) {
            let taken = slot.choices.iter().find(|there| {
                there.methods.is_empty()
                    || choice.methods.is_empty()
                    || there.methods.iter().any(|method| choice.methods.contains(method))
            });
            let overlap =
                taken.map(|there| Overlap { one: (choice.route, choice.path), other: (there.route, there.path) });
            if overlap.is_none() {
                slot.choices.push(choice);
            }
            return overlap;
        }
        let index = slots.len();
        self.by_shape.insert(path.shape().to_owned(), index);
        let router = match path.catch_all() {
            None => &mut self.exact,
            Some(depth) => {
                let place = self.catch_all.partition_point(|(there, _)| *there > depth);
                if self.catch_all.get(place).is_none_or(|(there, _)| *there != depth) {
                    self.catch_all.insert(place, (depth, Router::new()));
                }
                match self.catch_all.get_mut(place) {
                    Some((_, router)) => router,
                    None => &mut self.exact,
                }
            }
        };
        // Shapes differ, parameters at one place have one name and catch-alls of one router stand at one depth, so there
        // is nothing left to collide; if the router disagrees, the pattern is left out rather than another one lost.
        let mut is_in = router.insert(path.for_table(), index).is_ok();
        if let Some(empty) = path.without_rest() {
            is_in |= router.insert(empty, index).is_ok();
        }
        debug_assert!(is_in, "{path}");
        slots.push(Slot { choices: vec![choice] });
        None
    }

    fn find(&self, path: &str) -> Option<usize> {
        if let Ok(found) = self.exact.at(path) {
            return Some(*found.value);
        }
        self.catch_all.iter().find_map(|(_, router)| router.at(path).ok().map(|found| *found.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::document::{Authenticate, PolicyMode};
    use machine::Name;
    use std::collections::BTreeMap;

    fn route(hosts: &[&str], paths: &[&str], methods: &[&str]) -> Route {
        Route {
            hosts: hosts.iter().map(|host| HostPattern::new(host).unwrap()).collect(),
            paths: paths.iter().map(|path| PathPattern::new(path).unwrap()).collect(),
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            upstream: Name::new("u").unwrap(),
            authenticate: Authenticate::default(),
            policies: PolicyMode::default(),
            attributes: BTreeMap::new(),
            limits: Vec::new(),
            cost: 1,
            when_isolated: None,
            on_revoke: None,
            body_bytes_max: None,
            response_timeout: None,
        }
    }

    fn found(table: &Table, host: &str, path: &str, method: &str) -> String {
        match table.find(host, path, &method.parse().unwrap()) {
            Found::Route(index) => index.to_string(),
            Found::OtherMethods(slot) => {
                let methods: Vec<&str> = slot.methods().map(Method::as_str).collect();
                format!("only {}", methods.join(" "))
            }
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_path_decides_then_the_method() {
        let routes = [
            route(&[], &["/{*rest}"], &[]),
            route(&[], &["/orders/{*rest}"], &["GET", "POST"]),
            route(&[], &["/orders/{id}"], &["GET"]),
            route(&[], &["/orders/{order}"], &["DELETE"]),
            route(&[], &["/orders/new"], &["POST"]),
            route(&[], &["/{tenant}/items/{*rest}"], &[]),
        ];
        let (table, overlaps) = Table::build(routes.iter());
        assert_eq!(overlaps, []);
        for (method, path, expected) in [
            ("GET", "/", "0"),
            ("GET", "/orders", "0"),
            ("GET", "/orders/", "1"),
            ("GET", "/orders/7", "2"),
            ("DELETE", "/orders/7", "3"),
            ("PUT", "/orders/7", "only GET DELETE"),
            ("POST", "/orders/new", "4"),
            ("GET", "/orders/new", "only POST"),
            ("POST", "/orders/7/lines", "1"),
            ("PUT", "/orders/7/lines", "only GET POST"),
            ("PUT", "/t/items/1/2", "5"),
            ("PUT", "/orders/items/1", "5"),
            ("PUT", "/t/other/1", "0"),
        ] {
            assert_eq!(found(&table, "h", path, method), expected, "{method} {path}");
        }
    }

    #[test]
    fn the_most_specific_host_decides_if_it_has_the_path() {
        let routes = [
            route(&["api.example.com"], &["/a"], &["GET"]),
            route(&["*.example.com"], &["/a", "/b"], &[]),
            route(&["*.eu.example.com"], &["/b"], &[]),
            route(&[], &["/{*rest}"], &[]),
        ];
        let (table, overlaps) = Table::build(routes.iter());
        assert_eq!(overlaps, []);
        for (host, path, expected) in [
            ("api.example.com", "/a", "0"),
            ("api.example.com", "/b", "1"),
            ("api.example.com", "/c", "3"),
            ("x.eu.example.com", "/b", "2"),
            ("x.eu.example.com", "/a", "1"),
            ("example.com", "/a", "3"),
            ("other", "/a", "3"),
            ("", "/a", "3"),
        ] {
            assert_eq!(found(&table, host, path, "GET"), expected, "{host} {path}");
        }
        assert_eq!(found(&table, "api.example.com", "/a", "PUT"), "only GET");
    }

    #[test]
    fn ambiguous_routes_are_told() {
        let overlap = |one, other| Overlap { one, other };
        for (routes, expected) in [
            (vec![route(&[], &["/a"], &[]), route(&[], &["/a"], &["GET"])], vec![overlap((1, 0), (0, 0))]),
            (
                vec![route(&[], &["/x", "/a/{b}"], &["GET"]), route(&[], &["/a/{c}"], &["GET", "PUT"])],
                vec![overlap((1, 0), (0, 1))],
            ),
            (vec![route(&[], &["/a/{*b}"], &["GET"]), route(&[], &["/a/{*c}"], &["PUT"])], vec![]),
            (vec![route(&["h"], &["/a"], &[]), route(&[], &["/a"], &[])], vec![]),
            (vec![route(&["h", "i"], &["/a"], &[]), route(&["i", "j"], &["/a"], &[])], vec![overlap((1, 0), (0, 0))]),
            (vec![route(&[], &["/a", "/a"], &[])], vec![overlap((0, 1), (0, 0))]),
        ] {
            assert_eq!(Table::build(routes.iter()).1, expected);
        }
    }

    #[test]
    fn every_pattern_finds_its_way_in() {
        let texts = [
            "/",
            "/{*r}",
            "/{a}",
            "/{a}/",
            "/{a}/{b}",
            "/{a}/{*r}",
            "/x",
            "/x/",
            "/x/{b}",
            "/x/{b}/y",
            "/x/{*r}",
            "/x/y/{*r}",
            "/x/{b}/{*r}",
            "/x/y",
            "/{a}/y/{*r}",
            "/{a}/{b}/{*r}",
            "/x/{b}/{c}/{*r}",
        ];
        let routes: Vec<Route> = texts.iter().map(|text| route(&[], &[text], &[])).collect();
        for turn in 0..texts.len() {
            let mut turned = routes.clone();
            turned.rotate_left(turn);
            let (table, overlaps) = Table::build(turned.iter());
            assert_eq!(overlaps, []);
            for (path, text) in [
                ("/", "/"),
                ("/q", "/{a}"),
                ("/q/", "/{a}/"),
                ("/q/r", "/{a}/{b}"),
                ("/q/r/s", "/{a}/{b}/{*r}"),
                ("/x/q/y", "/x/{b}/y"),
                ("/x/y", "/x/y"),
                ("/x/y/z", "/x/y/{*r}"),
                ("/x/q/r/s", "/x/{b}/{c}/{*r}"),
                ("/q/y/z", "/{a}/y/{*r}"),
            ] {
                let expected = turned.iter().position(|route| route.paths[0].to_string() == text).unwrap();
                assert_eq!(found(&table, "", path, "GET"), expected.to_string(), "{path} in turn {turn}");
            }
        }
    }
}
