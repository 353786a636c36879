//! The form of a command table: one macro call yields the parsed command, the dispatch, the list, and what the page's
//! language knows of it, so that a command cannot exist in one place only.

use hospes_party::view::Notice;

/// What is known of a command besides its arguments.
#[derive(Debug, Clone, Copy)]
pub struct CommandInfo {
    /// Name.
    pub name: &'static str,
    /// A screen that shows its answer asks again when one of these changes.
    pub reads: &'static [Notice],
    /// What it makes stale when it was carried out.
    pub changes: &'static [Notice],
}

/// A table of commands. What a body evaluates to is the answer; `?` in it answers with a fault.
macro_rules! commands {
    (
        $(#[$about:meta])* enum $call:ident, list $list:ident, on $asked:ty;
        $( $(#[doc = $doc:literal])* $name:literal $variant:ident { $($field:ident : $type:ty),* } -> $answer:ty,
           reads [$($reads:ident),*], changes [$($changes:ident),*], |$on:ident| $body:expr; )*
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "command", content = "args", deny_unknown_fields)]
        pub enum $call {
            $( $(#[doc = $doc])* #[serde(rename = $name)] $variant { $(
                #[doc = concat!("Argument `", stringify!($field), "`.")]
                $field: $type
            ),* }, )*
        }

        /// Every command of this table.
        pub const $list: &[$crate::command::CommandInfo] = &[
            $( $crate::command::CommandInfo {
                name: $name,
                reads: &[$(hospes_party::view::Notice::$reads),*],
                changes: &[$(hospes_party::view::Notice::$changes),*],
            }, )*
        ];

        impl $call {
            /// What is known of the command.
            pub fn info(&self) -> $crate::command::CommandInfo {
                match self {
                    $( Self::$variant { .. } => $crate::command::CommandInfo {
                        name: $name,
                        reads: &[$(hospes_party::view::Notice::$reads),*],
                        changes: &[$(hospes_party::view::Notice::$changes),*],
                    }, )*
                }
            }

            /// Carries the command out.
            pub(crate) async fn ask(self, asked: &$asked) -> Result<serde_json::Value, $crate::fault::Fault> {
                match self {
                    $( Self::$variant { $($field),* } => {
                        let $on = asked;
                        let done: $answer = $body;
                        $crate::command::written(&done)
                    } )*
                }
            }

            /// Tells the page's language about every command.
            pub(crate) fn describe(into: &mut $crate::typescript::Description) {
                $(
                    into.begin($name, concat!($($doc, "\n"),*));
                    $( into.argument::<$type>(stringify!($field)); )*
                    into.end::<$answer>(
                        &[$(hospes_party::view::Notice::$reads),*],
                        &[$(hospes_party::view::Notice::$changes),*],
                    );
                )*
            }
        }
    };
}
pub(crate) use commands;

/// An answer as it goes to whoever asked.
pub(crate) fn written(answer: &impl serde::Serialize) -> Result<serde_json::Value, crate::fault::Fault> {
    serde_json::to_value(answer).map_err(|e| crate::fault::Fault::new(crate::fault::FaultCode::Store, e.to_string()))
}
