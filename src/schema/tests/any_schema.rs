//! Random schemas: what the relay finds in their envelopes is what prost-reflect finds,
//! and their JSON says the same as their bytes.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use prost_reflect::DynamicMessage;

use super::super::{
    Mode, Schema,
    oracle::{SchemaText, Verdict, judge, random_envelope, random_schema},
    walk,
};

const ENVELOPES: usize = 8;

fn tapes() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
    let tape = |bytes_max| vec(any::<u8>(), 0..bytes_max);
    (tape(1_500), vec(tape(500), ENVELOPES))
}

#[derive(Default)]
struct Counts(BTreeMap<&'static str, u32>);

impl Counts {
    fn add(&mut self, what: &'static str, occurs: bool) {
        *self.0.entry(what).or_default() += u32::from(occurs);
    }
}

fn check_topics(schema: &Schema, envelope: &[u8], counts: &mut Counts) {
    let verdict = judge(schema, envelope);
    counts.add("taken", matches!(verdict, Verdict::Taken));
    counts.add("refused by choice", matches!(verdict, Verdict::RefusedByChoice(_)));
    counts.add("refused by both", matches!(verdict, Verdict::RefusedByBoth));
    let Ok(inspected) = schema.inspect(envelope) else {
        return;
    };
    counts.add("routed", !inspected.topics.is_empty());
    counts.add("routed to several topics", inspected.topics.len() > 1);
    counts.add("with a whole topic", inspected.topics.iter().any(|it| it.is_everyone()));
    let walked = walk(&schema.table, envelope, Mode::Route);
    counts.add("decided by order", walked.is_ok_and(|found| found.is_ambiguous));
}

#[test]
fn print_some() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let counts = std::cell::RefCell::new(Counts::default());
    let start = std::time::Instant::now();
    let n = std::cell::Cell::new(0);
    let time = std::cell::Cell::new(std::time::Duration::ZERO);
    let result = runner.run(&tapes(), |(tape, tapes)| {
        let text: SchemaText = random_schema(&tape);
        n.set(n.get() + 1);
        if n.get() == 5 { println!("{}\n{}", text.main, text.legacy); }
        let s = std::time::Instant::now();
        let schema = text.schema();
        time.set(time.get() + s.elapsed());
        for tape in tapes {
            check_topics(&schema, &random_envelope(&schema, &tape), &mut counts.borrow_mut());
        }
        Ok(())
    });
    println!("{:?} {:?} {:?}", counts.borrow().0, start.elapsed(), time.get());
    result.unwrap();
}
