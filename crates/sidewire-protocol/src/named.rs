//! Closed sets of named values, such as the values of a metric label: each is declared once, with
//! its name.

/// A type whose values have names from a closed set. Several values may share a name: those that
/// differ only in their data.
pub trait NamedValues {
    /// Number of names.
    const COUNT: usize;

    /// Returns all names.
    fn names() -> Vec<&'static str>;

    /// Returns the position of this value's name in [`names`](Self::names).
    fn index(&self) -> usize;

    /// Returns the name of this value.
    fn name(&self) -> &'static str;
}

/// Declares an enum with the name of each value. With `impl`, names the variants of an enum that
/// has data; the last entry may then be a variant that holds another [`NamedValues`], whose names
/// it adopts. A variant without a name does not compile.
///
/// ```
/// # use sidewire_protocol::{NamedValues, named_values};
/// named_values! {
///     /// A color.
///     pub enum Color {
///         /// The color of grass.
///         Green = "green",
///     }
/// }
/// enum Paint { None, Mixed(u8, u8), Pure(Color) }
/// named_values! {
///     impl Paint { None = "none", Mixed = "mixed", ..Pure(Color) }
/// }
/// assert_eq!((Color::ALL, Color::Green.as_str()), ([Color::Green], "green"));
/// assert_eq!(Paint::names(), ["none", "mixed", "green"]);
/// assert_eq!([Paint::None, Paint::Pure(Color::Green)].map(|it| it.index()), [0, 2]);
/// assert_eq!(Paint::Mixed(1, 2).name(), "mixed");
/// ```
///
/// For `Paint` this expands to an implementation of [`NamedValues`] with functions such as
///
/// ```ignore
/// fn name(&self) -> &'static str {
///     match self {
///         Self::None { .. } => "none",
///         Self::Mixed { .. } => "mixed",
///         Self::Pure(it) => it.name(),
///     }
/// }
/// ```
#[macro_export]
macro_rules! named_values {
    ($(#[$meta:meta])* $vis:vis enum $enum:ident {
        $($(#[$doc:meta])* $value:ident = $name:expr,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $enum { $($(#[$doc])* $value,)+ }

        #[allow(dead_code, reason = "not every set is listed")]
        impl $enum {
            /// All values, in the order of their declaration.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// Returns the name of the value.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $name,)+ }
            }
        }

        $crate::named_values! { impl $enum { $($value = $name,)+ } }
    };
    (impl $enum:ty { $($value:ident = $name:expr,)+ $(..$nested:ident($inner:ty))? }) => {
        impl $crate::NamedValues for $enum {
            const COUNT: usize = [$($name),+].len()$( + <$inner>::COUNT)?;

            fn names() -> Vec<&'static str> {
                [$($name),+].into_iter()$(.chain(<$inner>::names()))?.collect()
            }

            fn index(&self) -> usize {
                enum Index { $($value,)+ }
                match self {
                    $(Self::$value { .. } => Index::$value as usize,)+
                    $(Self::$nested(it) => Self::COUNT - <$inner>::COUNT + it.index(),)?
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$value { .. } => $name,)+
                    $(Self::$nested(it) => it.name(),)?
                }
            }
        }
    };
}
