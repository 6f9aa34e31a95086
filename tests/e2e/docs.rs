//! Checks the documentation: the exchange in docs/exchange.md happens as it is written
//! there, the metrics are those of docs/metrics.md, the README's config can be parsed, and
//! links have a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use serde_json::Value;
use sidewire::config::Config;
use sidewire_client::{ControlMessage, Envelope};
use sidewire_protocol::{schema::Schema, wire};
use sidewire_testing::websocket::{only_frame, parse_header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    raw::http,
    support::{INGEST_KEY, PATIENCE, TestRelay, token},
    vocabulary::only_with_tracker,
};

/// The directories of the pages that are checked for links.
const DIRECTORIES: [&str; 3] = [".", "docs", "docs/design"];

#[tokio::test]
async fn the_documented_exchange_happens_as_written() {
    if !only_with_tracker("the page shows its bytes") {
        return;
    }
    let relay = TestRelay::start();
    let mut stream = TcpStream::connect(relay.addresses.client).await.unwrap();
    let page = page("docs/exchange.md");
    let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
    // The relay's answer to the backend about the last event, and the last envelope as JSON.
    let mut names = Names::default();
    let mut answer = Value::Null;
    let mut shown = None;

    for Block { info, text } in blocks(&page) {
        *steps.entry(info).or_default() += 1;
        match info {
            "http client" => {
                let request = text.replace("<jwt>", &token("acme", "alice"));
                let request = format!("{}\n\n", request.trim_end()).replace('\n', "\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
            }
            "http relay" => {
                let head = read_head(&mut stream).await;
                assert_eq!(without_date(&head), without_date(text));
            }
            "http backend" => answer = post(&relay, text).await,
            "json answer" => {
                let documented: Value = serde_json::from_str(text).unwrap();
                names.replace_text(&answer["message_id"], &documented["message_id"]);
                let actual = names.documented(answer.to_string().as_bytes());
                assert_eq!(json(&actual), documented);
            }
            "hex client" => {
                let frame = hex(text);
                stream.write_all(&frame).await.unwrap();
                shown = Some(as_json(&relay.schema, &frame[6..]));
            }
            "hex relay" => {
                let documented = hex(text);
                let actual = read_frame(&mut stream).await;
                names.learn(
                    &only_frame(&actual).payload,
                    &only_frame(&documented).payload,
                );
                assert_eq!(to_hex(&names.documented(&actual)), to_hex(&documented));
                shown = Some(as_json(&relay.schema, &only_frame(&documented).payload));
            }
            "json client" | "json relay" => {
                assert_eq!(json(text.as_bytes()), shown.take().unwrap());
            }
            other => panic!("what is a block of {other:?}?"),
        }
    }
    let counts = [
        ("hex client", 5),
        ("hex relay", 6),
        ("http backend", 1),
        ("http client", 1),
        ("http relay", 1),
        ("json answer", 1),
        ("json client", 4),
        ("json relay", 5),
    ];
    assert_eq!(steps, BTreeMap::from(counts));
    let left = timeout(PATIENCE, stream.read_u8()).await.unwrap();
    assert!(left.is_err(), "the relay says more than is written");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_metrics_match_the_page() {
    let relay = TestRelay::start();
    let scraped = http(relay.addresses.ops, "GET /metrics HTTP/1.1\r\n", "", b"").await;
    let page = page("docs/metrics.md");
    let documented: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            let cells: Vec<_> = row.split(" | ").collect();
            let [name, kind, labels, help] = cells[..] else {
                panic!("four cells: {row}")
            };
            let labels = labels.replace('`', "");
            (name.trim_end_matches('`'), row_of(kind, &labels, help))
        })
        .collect();
    assert!(!documented.is_empty());
    assert_eq!(described(scraped.text()), documented);
    assert!(relay.stop().await);
}

/// Labels of which any value may occur.
const OPEN_LABELS: [&str; 3] = ["revision", "tenant", "version"];

#[tokio::test]
async fn the_label_values_match_the_page() {
    let relay = TestRelay::start();
    let scraped = http(relay.addresses.ops, "GET /metrics HTTP/1.1\r\n", "", b"").await;
    let page = page("docs/metrics.md");
    let (_, section) = page.split_once("\n## Label values\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeMap<_, BTreeSet<_>> = section
        .replace("\n  ", " ")
        .lines()
        .filter_map(|line| {
            let (series, values) = line.strip_prefix("- `")?.split_once("`: ")?;
            let values = values.split('`').skip(1).step_by(2);
            Some((series.to_owned(), values.map(str::to_owned).collect()))
        })
        .collect();
    let text = scraped.text();
    let mut actual: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((metric, labels)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = labels.rsplit_once('}').unwrap();
        let labels: Vec<_> = labels
            .split(',')
            .map(|label| label.split_once('=').unwrap())
            .filter(|(name, _)| *name != "le" && !OPEN_LABELS.contains(name))
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        let [others @ .., (name, value)] = &labels[..] else {
            continue;
        };
        // The values of the last label, for each combination of the others.
        let others = others
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\", "));
        let series = format!("{metric}{{{}{name}}}", others.collect::<String>());
        actual
            .entry(series)
            .or_default()
            .insert((*value).to_owned());
    }
    assert!(actual.len() > 15);
    assert_eq!(actual, documented);
    assert!(relay.stop().await);
}

#[test]
fn the_config_in_the_readme_can_be_parsed() {
    let page = page("README.md");
    let configs: Vec<_> = blocks(&page)
        .into_iter()
        .filter(|block| block.info == "toml")
        .collect();
    assert!(!configs.is_empty());
    for config in configs {
        Config::parse(config.text, Path::new("/etc/sidewire")).unwrap();
    }
}

#[test]
fn links_have_targets() {
    let mut links = 0;
    for name in pages() {
        let page = page(&name);
        let directory = root().join(&name).parent().unwrap().to_owned();
        for link in page
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.starts_with("https://") {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&name)
            } else {
                directory.join(path)
            };
            assert!(target.exists(), "{name} links to {link}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{name} links to {link}");
            }
        }
    }
    assert!(links > 0);
}

/// The ids and times that differ between runs: the actual bytes with the documented ones.
#[derive(Default)]
struct Names(Vec<(Vec<u8>, Vec<u8>)>);

impl Names {
    /// Records the ids and times of two envelopes that should otherwise be equal.
    fn learn(&mut self, actual: &[u8], documented: &[u8]) {
        let pairs = own(actual).into_iter().zip(own(documented));
        self.0.extend(pairs.filter(|(a, b)| a.len() == b.len()));
    }

    fn replace_text(&mut self, actual: &Value, documented: &Value) {
        let bytes = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
        self.0.push((bytes(actual), bytes(documented)));
    }

    /// Returns the bytes with the ids and times of the page.
    fn documented(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (actual, documented) in &self.0 {
            let mut at = 0;
            while let Some(found) = position(&bytes[at..], actual) {
                bytes[at + found..][..actual.len()].copy_from_slice(documented);
                at += found + actual.len();
            }
        }
        bytes
    }
}

/// Returns the ids and times that the relay has put into the envelope, as bytes. (The
/// client's own are the same in both.)
fn own(envelope: &[u8]) -> Vec<Vec<u8>> {
    let Ok(envelope) = Envelope::decode(envelope) else {
        return Vec::new();
    };
    let position = match &envelope.control {
        Some(ControlMessage::SubscriptionConfirmed(confirmed)) => confirmed.position.clone(),
        Some(ControlMessage::Pong(pong)) => pong.position.clone(),
        _ => envelope.position.clone(),
    };
    let pong = match &envelope.control {
        Some(ControlMessage::Pong(pong)) => pong.timestamp,
        _ => envelope.timestamp,
    };
    // With their tags, so that the client's own values are not replaced.
    let timestamp = Envelope {
        timestamp: envelope.timestamp,
        ..Default::default()
    };
    let pong = wire::Pong {
        timestamp: pong,
        client_timestamp: 0,
        position: None,
    };
    vec![
        envelope.message_id.into_bytes(),
        position.unwrap_or_default().epoch.into_bytes(),
        timestamp.encode_to_vec(),
        pong.encode_to_vec(),
    ]
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let part = (!part.is_empty()).then_some(part)?;
    bytes.windows(part.len()).position(|window| window == part)
}

async fn post(relay: &TestRelay, request: &str) -> Value {
    let (head, body) = request.split_once("\n\n").unwrap();
    let body = body.trim_end();
    let mut lines = head.lines();
    let line = format!("{}\r\n", lines.next().unwrap());
    let headers: String = lines
        .filter(|header| !header.starts_with("Host: "))
        .filter_map(|header| match header.strip_prefix("Content-Length: ") {
            Some(length) => {
                assert_eq!(length.parse(), Ok(body.len()));
                None
            }
            None => Some(format!(
                "{}\r\n",
                header.replace("<ingest key>", INGEST_KEY)
            )),
        })
        .collect();
    let answer = http(relay.addresses.ingest, &line, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn without_date(head: &str) -> Vec<&str> {
    head.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("date: "))
        .collect()
}

/// Reads the relay's next frame including its header.
async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let reading = async {
        let mut frame = Vec::new();
        loop {
            frame.push(stream.read_u8().await.unwrap());
            if parse_header(&frame)
                .unwrap()
                .is_some_and(|(_, place)| frame.len() == place.end)
            {
                return frame;
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap()
}

fn as_json(schema: &Schema, envelope: &[u8]) -> Value {
    // A Close frame contains no envelope, and no JSON is shown for it.
    schema.envelope_to_json(envelope).unwrap_or_default()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

/// Parses a block's bytes: each line has pairs of digits, optionally followed by a comment.
fn hex(text: &str) -> Vec<u8> {
    text.lines()
        .filter_map(|line| line.split(';').next())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// A fenced block of a page.
struct Block<'a> {
    info: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut parts = page.split("\n```");
    let mut blocks = Vec::new();
    // Every other part is between two fences.
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (info, text) = block.split_once('\n').unwrap_or((block, ""));
        blocks.push(Block { info, text });
    }
    blocks
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'))
                .map(|it| if it == ' ' { '-' } else { it })
                .collect()
        })
        .collect()
}

/// Returns the kind, labels and help text of each metric in a scrape.
fn described(text: &str) -> BTreeMap<&str, String> {
    let mut helps = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helps.extend(help.split_once(' '));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            kinds.extend(kind.split_once(' '));
        } else {
            let (series, rest) = line.split_once(['{', ' ']).unwrap();
            let of_series = rest
                .split("\",")
                .filter_map(|label| label.split_once("=\""))
                .map(|(label, _)| label);
            let of_metric = labels.entry(metric_of(series, &kinds)).or_default();
            of_metric.extend(of_series.filter(|label| *label != "le"));
        }
    }
    labels
        .iter()
        .map(|(name, labels)| {
            let labels: Vec<_> = labels.iter().copied().collect();
            (*name, row_of(kinds[name], &labels.join(", "), helps[name]))
        })
        .collect()
}

/// Returns the metric of a series: a histogram has several series with other names.
fn metric_of<'a>(series: &'a str, kinds: &BTreeMap<&str, &str>) -> &'a str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| series.strip_suffix(suffix))
        .find(|name| kinds.get(name) == Some(&"histogram"))
        .unwrap_or(series)
}

fn row_of(kind: &str, labels: &str, help: &str) -> String {
    format!("{kind} | {labels} | {help}")
}

/// Returns the Markdown files of [`DIRECTORIES`].
fn pages() -> Vec<String> {
    let files = DIRECTORIES.iter().flat_map(|directory| {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        entries.map(move |entry| format!("{directory}/{}", entry.unwrap().file_name().display()))
    });
    files.filter(|name| name.ends_with(".md")).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `docs/guarantees.md` names files and tests, as "`file`: `test`, `test`".
#[test]
fn every_promise_names_an_existing_test() {
    let page = page("docs/guarantees.md");
    let (promises, _) = page.split_once("## What is not promised").unwrap();
    let rows: Vec<_> = promises
        .lines()
        .filter(|line| line.starts_with("| **"))
        .collect();
    assert!(rows.len() > 15);
    for row in rows {
        let shown_by = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        let mut shown = shown_by.contains("the simulation");
        for part in shown_by.split("; ") {
            let mut names = part.split('`').skip(1).step_by(2);
            let Some(path) = names.next() else {
                continue;
            };
            let place = root().join(path);
            assert!(place.exists(), "{path} is not there: {row}");
            for test in names {
                let code = fs::read_to_string(&place).unwrap();
                assert!(
                    code.contains(&format!("fn {test}(")),
                    "{path} has no {test}"
                );
            }
            shown = true;
        }
        assert!(shown, "nothing shows: {row}");
    }
}
