//! Headers of which a request may have one.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::Problem;

/// The value of a header that a request may have once.
///
/// # Errors
///
/// 400 where it is given more than once: which one counts would be anybody's guess.
pub fn only_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("the header {name} is given more than once");
        return Err(Problem::invalid(detail));
    }
    Ok(value)
}
