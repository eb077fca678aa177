//! Configuration: raw layers in, one checked [`Config`] out, and for every setting where its value comes from.
//!
//! The layers, later ones first asked: `config/default.toml` (compiled in, and the documentation), the file of
//! `--config`, the environment `MIGMA_ERASER__SECTION__KEY`. To add a setting, add one line to the table in
//! `settings` and its documentation to `config/default.toml`; tests hold the two together.
//!
//! Never here: a guess (an unknown key, a wrong type or a value out of range is a fault), a value half checked, a secret
//! in any text, a start with some faults told and others kept for the next try.

mod addresses;
mod admin_token;
mod fault;
mod given;
mod journal_url;
mod kinds;
mod layers;
mod rules;
mod secret;
mod settings;
mod table;
mod units;

use std::ffi::OsString;
use std::path::Path;

pub use self::addresses::BrokerUrl;
pub use self::admin_token::{ADMIN_TOKEN_VARIABLE, AdminToken};
pub use self::fault::{ConfigError, Fault, Place, Source};
pub use self::journal_url::{DatabaseUrl, JournalUrl};
pub use self::kinds::LogFormat;
pub use self::layers::Setting;
pub use self::secret::{API_KEY_VARIABLE, ApiKeySource, Secret};
pub use self::settings::{Admin, Amqp, Batch, Config, Journal, Log, Migma, Names, Outcome, RateLimit, Retry, Shutdown};
pub use self::units::{parse_duration, show_duration};

/// `config/default.toml`: every setting with its default, unit, range and reason.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What the name of every environment variable with a setting starts with.
pub const ENV_PREFIX: &str = "MIGMA_ERASER__";

impl Config {
    /// Reads all layers: the defaults, this file, and of `env` the variables that start with [`ENV_PREFIX`].
    ///
    /// # Errors
    /// Every fault of every layer at once, each with its key, its source and its cure.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut layers = layers::Layers::default();
        layers.add_toml(&Source::Default, DEFAULTS);
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_env(env);
        layers.check()
    }

    /// The defaults, overridden by this TOML text, which faults call `name`. For tests and examples.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::from_texts(name, text, [])
    }

    /// As [`Config::load`], with a TOML text in place of a file, which faults call `name`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_texts(
        name: &str,
        text: &str,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = layers::Layers::default();
        layers.add_toml(&Source::Default, DEFAULTS);
        layers.add_toml(&Source::File(name.into()), text);
        layers.add_env(env);
        layers.check()
    }
}

#[cfg(test)]
mod tests;
