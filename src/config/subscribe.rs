//! `[auth.subscribe]`: the backend that is asked whether a client may subscribe. Names its key
//! file but never reads it.

use std::{path::PathBuf, time::Duration};

use super::{
    backend_url::BackendUrl, error::ConfigProblems, paths::PathResolver, reload::live,
    section::config_section, values,
};

/// Maximum time for which an answer is kept.
pub const ANSWER_AGE_MAX: Duration = Duration::from_hours(1);

/// Maximum value of `timeout`: the client waits for as long.
const TIMEOUT_MAX: Duration = Duration::from_secs(20);

/// Maximum value of `entries`. Forgetting all topics of a kind looks at each of them.
const ENTRIES_MAX: usize = 1_000_000;

/// Maximum value of `concurrency`: each question under way has a socket.
const CONCURRENCY_MAX: usize = 1000;

config_section! {
    /// The `[auth.subscribe]` section.
    pub struct SubscribeSection("auth.subscribe") {
        /// The URL to which questions are posted: `https`, `http` on loopback, or a Unix socket
        /// with the path of the request. With `None`, the default, no backend is asked.
        live url: Option<BackendUrl> = None;
        /// The file with the secret that is sent as Bearer token; none by default.
        live key_file: Option<PathBuf> = None;
        /// Time limit for an answer; 2 s.
        #[serde(deserialize_with = "values::duration")]
        live timeout: Duration = Duration::from_secs(2), check_duration();
        /// Time for which an allowed topic is remembered, if the answer has no `ttl_s`; 60 s, at
        /// most 1 h. 0 s: it is not remembered.
        #[serde(deserialize_with = "values::duration")]
        live ttl: Duration = Duration::from_secs(60);
        /// Time for which a topic that was not allowed is remembered; 5 s. 0 s: it is not
        /// remembered.
        #[serde(deserialize_with = "values::duration")]
        live negative_ttl: Duration = Duration::from_secs(5);
        /// Maximum number of remembered answers, each for one topic of one user; 100,000.
        live entries: usize = 100_000, check_count();
        /// Maximum number of questions under way; 64.
        live concurrency: usize = 64, check_count();
    }
}

impl SubscribeSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
        if self.url.is_none() && self.key_file.is_some() {
            problems.add_problem(
                "auth.subscribe.key_file",
                "has no effect, since there is no auth.subscribe.url",
                "set auth.subscribe.url, or remove it",
            );
        }
        let durations = [
            ("auth.subscribe.timeout", self.timeout, TIMEOUT_MAX),
            ("auth.subscribe.ttl", self.ttl, ANSWER_AGE_MAX),
            (
                "auth.subscribe.negative_ttl",
                self.negative_ttl,
                ANSWER_AGE_MAX,
            ),
        ];
        for (key, duration, max) in durations {
            if duration > max {
                problems.add_problem(
                    key,
                    format!("is {}", humantime::format_duration(duration)),
                    format!("the maximum is {}", humantime::format_duration(max)),
                );
            }
        }
        let counts = [
            ("auth.subscribe.entries", self.entries, ENTRIES_MAX),
            (
                "auth.subscribe.concurrency",
                self.concurrency,
                CONCURRENCY_MAX,
            ),
        ];
        for (key, count, max) in counts {
            if count > max {
                problems.add_problem(key, format!("is {count}"), format!("the maximum is {max}"));
            }
        }
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        if let Some(url) = &mut self.url {
            url.resolve_path("auth.subscribe.url", paths, problems);
        }
        if let Some(file) = &mut self.key_file {
            paths.resolve("auth.subscribe.key_file".to_owned(), file, problems);
        }
    }
}
