//! Turns the table of settings into types and into the code that reads them.
//!
//! Never a name of a setting here: the table is `settings`.

/// For every section a struct with a field for every setting, [`super::Config`] over them, `KEYS`, and `read`.
macro_rules! settings {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $( $(#[$key_doc:meta])* $key:ident: $type:ty = $kind:expr; )*
        }
    )*) => {
        /// Everything that the worker goes by: every value checked by itself and with the others.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[$section_doc])* pub $section: $Section, )*
            /// Each setting as it was read, to be shown.
            pub(super) listed: Vec<$crate::config::Setting>,
        }

        $(
            $(#[$section_doc])*
            #[derive(Clone, Debug)]
            pub struct $Section {
                $( $(#[$key_doc])* pub $key: $type, )*
            }
        )*

        /// Every key, in the order of the table.
        pub(super) const KEYS: &[&str] = &[$( $( concat!(stringify!($section), ".", stringify!($key)), )* )*];

        /// Reads every setting, so that every fault is seen; `None` where one has no value at all.
        pub(super) fn read(layers: &mut $crate::config::layers::Layers) -> Option<Config> {
            $(
                let $section = {
                    $( let $key = layers.read(concat!(stringify!($section), ".", stringify!($key)), &$kind); )*
                    move || Some($Section { $( $key: $key?, )* })
                };
            )*
            Some(Config { $( $section: $section()?, )* listed: Vec::new() })
        }
    };
}

pub(super) use settings;
