//! Checks that docs/openapi.yaml describes what the routers serve: the paths, their methods, the
//! query parameters, the statuses and the codes. `scripts/check-openapi` compares the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use sidewire::{
    ingest::{ENDPOINTS, QueryParameter},
    ops,
};
use sidewire_protocol::ErrorCode;

use crate::{raw::http, support::TestRelay};

/// Statuses that hyper answers by itself if it cannot read a request. They are in no metric.
const UNREADABLE: [&str; 2] = ["414", "431"];

type Names = BTreeSet<String>;

#[test]
fn the_described_paths_and_methods_are_those_of_the_routers() {
    let described: BTreeMap<_, Names> = described_calls()
        .into_iter()
        .map(|(path, methods)| (path, methods.into_keys().collect()))
        .collect();
    let ingest = ENDPOINTS.iter().map(|it| (it.path, it.methods));
    let served: BTreeMap<_, _> = ingest
        .chain(ops::PATHS.map(|path| (path, "GET, HEAD")))
        .map(|(path, methods)| (path.to_owned(), names(methods.split(", "))))
        .collect();
    assert_eq!(described, served);
}

#[test]
fn the_described_query_parameters_are_those_that_the_calls_take() {
    let document = document();
    let lines: Vec<_> = document.lines().map(str::trim).collect();
    let described = lines.windows(2).filter_map(|pair| {
        let name = pair[0].trim_start_matches("- ").strip_prefix("name: ");
        name.filter(|_| pair[1] == "in: query")
    });
    let taken = QueryParameter::ALL.map(QueryParameter::name);
    assert_eq!(names(described), names(taken));
}

#[tokio::test]
async fn the_described_statuses_of_calls_are_those_of_the_metric() {
    let relay = TestRelay::start();
    let scraped = http(relay.addresses.ops, "GET /metrics HTTP/1.1\r\n", "", b"").await;
    let counted = scraped
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("sidewire_ingest_requests_total{status=\""))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect::<Names>();
    let calls = described_calls().into_iter();
    let described: Names = calls
        .filter(|(path, _)| !ops::PATHS.contains(&path.as_str()))
        .flat_map(|(_, methods)| methods.into_values().flatten())
        .filter(|status| !UNREADABLE.contains(&status.as_str()))
        .collect();
    assert_eq!(described, counted);
    assert!(relay.stop().await);
}

#[test]
fn the_described_codes_and_version_are_those_of_the_relay() {
    let document = document();
    let (_, code) = document.split_once("\n    Code:\n").unwrap();
    let described = code
        .lines()
        .take_while(|line| line.starts_with("      "))
        .filter_map(|line| line.trim().strip_prefix("- "));
    assert_eq!(
        names(described),
        names(ErrorCode::ALL.map(ErrorCode::as_str))
    );
    let version = format!("\n  version: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(document.contains(&version), "expected{version}");
}

/// Returns the statuses of each method of each path.
///
/// The document is read by the indentation of its lines: a line that is misread makes the sets
/// differ from those of the code, so it does not go unnoticed.
fn described_calls() -> BTreeMap<String, BTreeMap<String, Names>> {
    let document = document();
    let (_, paths) = document.split_once("\npaths:\n").unwrap();
    let (paths, _) = paths.split_once("\ncomponents:\n").unwrap();
    let mut calls: BTreeMap<String, BTreeMap<String, Names>> = BTreeMap::new();
    let (mut path, mut method) = ("", String::new());
    for line in paths.lines() {
        let indentation = line.len() - line.trim_start().len();
        let Some(key) = line.trim().strip_suffix(':') else {
            continue;
        };
        match (indentation, key) {
            (2, _) => {
                path = key;
                calls.insert(path.to_owned(), BTreeMap::new());
            }
            (4, "get" | "head" | "post" | "put" | "patch" | "delete") => {
                method = key.to_uppercase();
                let methods = calls.get_mut(path).unwrap();
                methods.insert(method.clone(), Names::new());
            }
            (8, _) if key.starts_with('"') => {
                let statuses = calls.get_mut(path).unwrap().get_mut(&method).unwrap();
                statuses.insert(key.trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
    calls
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.yaml");
    fs::read_to_string(path).unwrap()
}

fn names<'a>(texts: impl IntoIterator<Item = &'a str>) -> Names {
    texts.into_iter().map(str::to_owned).collect()
}
