//! Declares a section of the configuration: each key once, with everything that holds for it.

/// Declares the struct of a section. Each key has its doc, its reload class, its type, its default
/// and, if it has bounds of its own, the method of `ConfigProblems` that checks them. The reload
/// class is a function of [`reload`](super::reload) or of the section's module.
///
/// ```ignore
/// config_section! {
///     /// The `[client]` section.
///     pub struct ClientSection("client") {
///         /// Maximum size of a request's head; 16 KiB.
///         #[serde(deserialize_with = "values::size")]
///         live head_max: usize = 16 * KIB, check_size(8 * KIB..=MIB);
///     }
/// }
/// ```
///
/// declares the struct with the public field `head_max`, its `Default`, and these functions:
///
/// ```ignore
/// fn check_bounds(&self, problems: &mut ConfigProblems) {
///     problems.check_size("client.head_max", self.head_max, 8 * KIB..=MIB);
/// }
/// fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
///     [live(&mut self.head_max, &running.head_max).then_some("client.head_max")]
///         .into_iter()
///         .flatten()
///         .collect()
/// }
/// ```
macro_rules! config_section {
    ($(#[$meta:meta])* pub struct $section:ident($table:literal) {
        $($(#[$key_meta:meta])* $class:ident $key:ident: $type:ty = $default:expr
            $(, $check:ident($($bounds:expr)?))?;)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $section { $($(#[$key_meta])* pub $key: $type,)+ }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $section {
            /// The keys, each with its reload class and type.
            #[cfg(test)]
            pub(super) const KEYS: &[(&str, &str, &str)] = &[
                $((concat!($table, ".", stringify!($key)), stringify!($class), stringify!($type)),)+
            ];

            /// Checks each key that has bounds.
            #[allow(unused_variables, reason = "a section may have no such key")]
            fn check_bounds(&self, problems: &mut $crate::config::error::ConfigProblems) {
                $($(problems.$check(concat!($table, ".", stringify!($key)), self.$key $(, $bounds)?);)?)+
            }

            /// Keeps the running value of each key that needs a restart, and returns the keys that
            /// would have changed.
            pub(super) fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
                [$($class(&mut self.$key, &running.$key)
                    .then_some(concat!($table, ".", stringify!($key))),)+]
                .into_iter()
                .flatten()
                .collect()
            }
        }
    };
}
pub(super) use config_section;
