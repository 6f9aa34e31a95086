//! How commands show connections: the columns, and how long they have been open.

use sidewire_client::ConnectionInfo;

use super::plain_text::plain_text;

/// Connections that are asked for at once.
pub(super) const PAGE: usize = 1_000;

/// The heading of each column.
pub(super) const HEADINGS: [&str; 8] = [
    "ID", "USER", "ADDRESS", "ENCODING", "OPEN FOR", "TOPICS", "FRAMES", "BYTES",
];

/// The columns with numbers.
pub(super) const NUMBERS: [usize; 3] = [5, 6, 7];

/// Returns the cells of a connection. `now` is the time in Unix seconds.
pub(super) fn cells(connection: &ConnectionInfo, now: i64) -> [String; 8] {
    let plain = |text: &str| plain_text(text).into_owned();
    [
        plain(&connection.id),
        plain(&connection.user),
        plain(&connection.address),
        plain(&connection.encoding),
        age(connection.since, now),
        connection.topics.to_string(),
        connection.outbox.frames.to_string(),
        connection.outbox.bytes.to_string(),
    ]
}

/// Returns how long ago a time was, in its two largest units, such as "3m 12s". Both are in Unix
/// seconds.
pub(super) fn age(since: i64, now: i64) -> String {
    let seconds = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units_and_is_never_negative() {
        for (seconds, expected) in [
            (-1, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_600 + 61, "1h 1m"),
            (86_400 * 400 + 3_600 * 23 + 59, "400d 23h"),
        ] {
            assert_eq!(age(1_000, 1_000 + seconds), expected);
        }
    }
}
