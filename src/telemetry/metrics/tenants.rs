//! The connections of the tenants with most of them. They are written here, since the registry
//! never removes a series, while tenants come and go.

use std::{
    cmp::Reverse,
    fmt::{self, Write as _},
};

use sidewire_protocol::TenantName;

const NAME: &str = "sidewire_tenant_connections";
const HELP: &str = "Connections of clients that are open, by tenant: the ops.tenant_labels tenants with most connections, and all others together as other. A tenant of that name is always among the others.";

/// The value of the label for the tenants without a series of their own.
const OTHER: &str = "other";

/// Appends the series of the `labels` tenants with most connections, and that of all others, to a
/// scrape. Appends nothing if `labels` is 0.
pub(super) fn append_tenants(
    scrape: &mut String,
    mut tenants: Vec<(TenantName, u64)>,
    labels: usize,
) {
    if labels == 0 {
        return;
    }
    let total: u64 = tenants.iter().map(|(_, connections)| connections).sum();
    tenants.retain(|(name, connections)| *connections > 0 && name.as_str() != OTHER);
    let by_connections = |it: &(TenantName, u64)| (Reverse(it.1), it.0.clone());
    if tenants.len() > labels {
        tenants.select_nth_unstable_by_key(labels - 1, by_connections);
        tenants.truncate(labels);
    }
    // In the order of their names, so that two scrapes are easy to compare.
    tenants.sort_unstable();
    let shown: u64 = tenants.iter().map(|(_, connections)| connections).sum();
    let written = write_series(scrape, &tenants, total.saturating_sub(shown));
    debug_assert!(written.is_ok(), "a string takes all that is written to it");
}

fn write_series(scrape: &mut String, tenants: &[(TenantName, u64)], others: u64) -> fmt::Result {
    writeln!(scrape, "# HELP {NAME} {HELP}\n# TYPE {NAME} gauge")?;
    for (name, connections) in tenants {
        // A name has no control characters, so no line feed.
        let name = name.as_str().replace('\\', r"\\").replace('"', "\\\"");
        writeln!(scrape, "{NAME}{{tenant=\"{name}\"}} {connections}")?;
    }
    writeln!(scrape, "{NAME}{{tenant=\"{OTHER}\"}} {others}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the series without the name of the metric.
    fn appended(tenants: &[(&str, u64)], labels: usize) -> Vec<String> {
        let parse =
            |(name, connections): &(&str, u64)| (TenantName::parse(name).unwrap(), *connections);
        let mut scrape = String::new();
        append_tenants(&mut scrape, tenants.iter().map(parse).collect(), labels);
        let series = scrape.lines().filter_map(|line| line.strip_prefix(NAME));
        series.map(str::to_owned).collect()
    }

    #[test]
    fn the_tenants_with_most_connections_have_a_series_and_the_others_share_one() {
        let tenants = [("a", 1), ("b", 5), ("c", 2), ("d", 5), ("e", 0)];
        assert_eq!(
            appended(&tenants, 2),
            [
                "{tenant=\"b\"} 5",
                "{tenant=\"d\"} 5",
                "{tenant=\"other\"} 3"
            ]
        );
        assert_eq!(appended(&tenants, 20).len(), 5);
        assert_eq!(appended(&tenants, 0), [""; 0]);
        assert_eq!(appended(&[], 20), ["{tenant=\"other\"} 0"]);
    }

    #[test]
    fn a_tenant_that_is_called_other_is_among_the_others() {
        assert_eq!(
            appended(&[("other", 7), ("a", 1), ("b", 2)], 1),
            ["{tenant=\"b\"} 2", "{tenant=\"other\"} 8"]
        );
    }

    #[test]
    fn quotes_and_backslashes_of_a_name_are_escaped() {
        let [name, _] = &appended(&[("a\"} 9 \\", 1)], 1)[..] else {
            panic!("a tenant and the others");
        };
        assert_eq!(name, r#"{tenant="a\"} 9 \\"} 1"#);
    }
}
