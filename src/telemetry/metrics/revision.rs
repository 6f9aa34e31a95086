//! The series with the revision of the schema in force. It is written here, since each revision
//! is a series of its own and the registry never removes a series.

use std::{fmt::Write as _, sync::Arc};

use arc_swap::ArcSwapOption;

use sidewire_protocol::schema::SchemaRevision;

const NAME: &str = "sidewire_schema_revision";
const HELP: &str = "Always 1; the label identifies the content of the schema in force. Comments and the order of declarations do not change it.";

/// The revision of the schema in force.
#[derive(Debug, Default)]
pub(super) struct ServingRevision(ArcSwapOption<SchemaRevision>);

impl ServingRevision {
    pub(super) fn set(&self, revision: SchemaRevision) {
        self.0.store(Some(Arc::new(revision)));
    }

    /// Appends the series to a scrape, once there is a schema.
    pub(super) fn append_to(&self, scrape: &mut String) {
        let Some(revision) = self.0.load_full() else {
            return;
        };
        let written = write!(
            scrape,
            "# HELP {NAME} {HELP}\n# TYPE {NAME} gauge\n{NAME}{{revision=\"{revision}\"}} 1\n\n"
        );
        debug_assert!(written.is_ok(), "a string takes all that is written to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidewire_protocol::schema::{BundledSchema, Schema};

    #[test]
    fn there_is_one_series_after_any_number_of_revisions() {
        let serving = ServingRevision::default();
        let mut scrape = String::new();
        serving.append_to(&mut scrape);
        assert_eq!(scrape, "");
        let other = BundledSchema::by_name("generic")
            .unwrap()
            .compile()
            .unwrap();
        let last = Schema::bundled().unwrap().revision();
        serving.set(other.revision());
        serving.set(last);
        serving.append_to(&mut scrape);
        let series: Vec<_> = scrape
            .lines()
            .filter(|line| line.starts_with(NAME))
            .collect();
        assert_eq!(series, [format!("{NAME}{{revision=\"{last}\"}} 1")]);
    }
}
