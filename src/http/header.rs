//! Headers that a request may have only once.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::HttpProblem;

/// Returns the value of a header that a request may have only once.
///
/// # Errors
///
/// Returns 400 if it is given more than once, since it would be unclear which one counts.
pub fn only_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, HttpProblem> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("the header {name} is given more than once");
        return Err(HttpProblem::bad_request(detail));
    }
    Ok(value)
}
