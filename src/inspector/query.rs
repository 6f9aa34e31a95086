//! The queries of data calls. Unknown and doubled parameters are refused, as on the ingest
//! listener.

use std::str::FromStr;

use crate::http::{HttpProblem, query_pairs};

/// The decoded parameters of a call.
#[derive(Debug, Default)]
pub(super) struct CallQuery(Vec<(String, String)>);

impl CallQuery {
    /// Parses the query of a call that takes the `known` parameters. Those in `repeatable` may be
    /// given several times.
    ///
    /// # Errors
    ///
    /// Returns 400 for a parameter that is not known, or is given twice.
    pub(super) fn parse(
        query: Option<&str>,
        known: &[&str],
        repeatable: &[&str],
    ) -> Result<Self, HttpProblem> {
        let mut found = Self::default();
        for pair in query_pairs(query) {
            let (name, value) =
                pair.map_err(|error| HttpProblem::bad_request(format!("the query {error}")))?;
            let may_repeat = repeatable.contains(&name.as_str());
            if !may_repeat && !known.contains(&name.as_str()) {
                return Err(invalid(&name, "is no parameter of this call"));
            }
            if !may_repeat && found.text(&name).is_some() {
                return Err(invalid(&name, "is given twice"));
            }
            found.0.push((name, value));
        }
        Ok(found)
    }

    /// Returns the text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the texts of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(found, _)| found == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// Returns the value of a parameter, if it is given.
    ///
    /// # Errors
    ///
    /// Returns 400 if the text is not such a value, which is `what`.
    pub(super) fn value<T: FromStr>(
        &self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, HttpProblem> {
        let value = self.text(name).map(str::parse).transpose();
        value.map_err(|_| invalid(name, &format!("is not {what}")))
    }
}

/// Returns the problem for a parameter that is not valid.
pub(super) fn invalid(name: &str, reason: &str) -> HttpProblem {
    HttpProblem::bad_request(format!("{name} {reason}")).with_field(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_known_and_given_once_unless_it_may_be_repeated() {
        let parse = |query| CallQuery::parse(Some(query), &["a"], &["b"]);
        let query = parse("b=1&a=x%20y&b=2").unwrap();
        assert_eq!(query.text("a"), Some("x y"));
        assert_eq!(query.all("b").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.text("c"), None);
        for refused in ["c=1", "a=1&a=1", "a=%zz"] {
            assert_eq!(parse(refused).unwrap_err().status(), 400, "{refused}");
        }
        assert_eq!(parse("a=7").unwrap().value("a", "a number"), Ok(Some(7)));
        assert!(parse("a=x").unwrap().value::<u8>("a", "a number").is_err());
    }
}
