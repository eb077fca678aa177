//! Secrets, and where the API key comes from.
//!
//! A secret has neither `Debug` nor `Display`; no fault quotes one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::Config;
use super::fault::{ConfigError, Fault, Source};

/// The environment variable that holds the API key.
pub const API_KEY_VARIABLE: &str = "MIGMA_API_KEY";

/// What an API key may be long, in bytes; and its file, with white space around the key.
const LONGEST: usize = 4096;

/// A text that must not be printed: it can be exposed, and nothing else.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes it in.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where the API key is read, at the start and again when it changes.
#[derive(Clone)]
pub enum ApiKeySource {
    /// From [`API_KEY_VARIABLE`], which stays as it was at the start.
    Env(Secret),
    /// From the file `migma.api_key_file`.
    File {
        /// Where it is.
        path: PathBuf,
        /// Where that is set.
        set_by: Source,
    },
}

impl ApiKeySource {
    /// Finds out where the key comes from, without reading a file. `variable` is the value of [`API_KEY_VARIABLE`]: it
    /// wins over `migma.api_key_file`, and counts as unset where it is empty.
    ///
    /// # Errors
    /// Neither is set, or the variable is no text.
    pub fn find(config: &Config, variable: Option<OsString>) -> Result<Self, ConfigError> {
        match variable.map(OsString::into_string).transpose() {
            Err(_) => return Err(unusable(&variable_source(), "is not UTF-8").into()),
            Ok(Some(text)) if !text.trim().is_empty() => return Ok(Self::Env(Secret::new(&text))),
            Ok(_) => {}
        }
        if let Some(path) = &config.migma.api_key_file {
            let set_by = config.source("migma.api_key_file").cloned().unwrap_or(Source::Default);
            return Ok(Self::File { path: path.clone(), set_by });
        }
        Err(Fault::new(
            "API key",
            None,
            "there is none",
            format!(
                "set the environment variable {API_KEY_VARIABLE}, or migma.api_key_file to the path of a file with it"
            ),
        )
        .into())
    }

    /// The file to watch, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Env(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// Reads the key as it is now, without the white space around it. Blocks for as long as the file does.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is empty, too long, or fit for no HTTP header.
    pub fn read(&self) -> Result<Secret, ConfigError> {
        match self {
            Self::Env(secret) => checked(secret.expose(), &variable_source()),
            Self::File { path, set_by } => {
                let file = Source::File(path.clone());
                let bytes = read_some(path).map_err(|error| {
                    Fault::new(
                        "migma.api_key_file",
                        Some(set_by),
                        format!("cannot read {}: {error}", path.display()),
                        format!("make it readable, or set {API_KEY_VARIABLE}"),
                    )
                })?;
                let text = String::from_utf8(bytes).map_err(|_| unusable(&file, "is not UTF-8"))?;
                checked(&text, &file)
            }
        }
    }
}

fn variable_source() -> Source {
    Source::Env(API_KEY_VARIABLE.to_owned())
}

/// Reads no more than could be taken: the path may be that of a device.
pub(super) fn read_some(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST as u64 * 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checked(text: &str, source: &Source) -> Result<Secret, ConfigError> {
    let key = text.trim();
    let problem = match key.bytes().position(|byte| !byte.is_ascii_graphic()) {
        _ if key.is_empty() => "is empty".to_owned(),
        _ if key.len() > LONGEST => format!("is longer than {LONGEST} bytes"),
        Some(at) => format!("holds a character at byte {} that cannot stand in an HTTP header", at + 1),
        None => return Ok(Secret::new(key)),
    };
    Err(unusable(source, problem).into())
}

fn unusable(source: &Source, problem: impl Into<String>) -> Fault {
    Fault::new("API key", Some(source), problem, "put the key there and nothing else, as Migma's dashboard shows it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(content: &[u8]) -> (tempfile::TempDir, ApiKeySource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, content).unwrap();
        let config = Config::from_toml("t.toml", &format!("[migma]\napi_key_file = {path:?}")).unwrap();
        (folder, ApiKeySource::find(&config, None).unwrap())
    }

    #[test]
    fn the_variable_wins_over_the_file_and_empty_is_unset() {
        let (_folder, _) = with_file(b"k");
        let config = Config::from_toml("t.toml", "[migma]\napi_key_file = 'somewhere'").unwrap();
        let from_env = ApiKeySource::find(&config, Some(" sk_1\n".into())).unwrap();
        assert_eq!(from_env.read().unwrap().expose(), "sk_1");
        assert_eq!(from_env.path(), None);
        assert!(ApiKeySource::find(&config, Some(" ".into())).unwrap().path().is_some());
        let nowhere = Config::from_toml("t.toml", "").unwrap();
        let told = ApiKeySource::find(&nowhere, Some("".into())).err().unwrap().to_string();
        assert!(told.contains("MIGMA_API_KEY") && told.contains("migma.api_key_file"), "{told}");
    }

    #[test]
    fn a_file_is_read_anew_each_time() {
        let (_folder, source) = with_file(b"  first\r\n");
        assert_eq!(source.read().unwrap().expose(), "first");
        std::fs::write(source.path().unwrap(), "second").unwrap();
        assert_eq!(source.read().unwrap().expose(), "second");
        std::fs::remove_file(source.path().unwrap()).unwrap();
        let told = source.read().err().unwrap().to_string();
        assert!(told.contains("migma.api_key_file (t.toml): cannot read"), "{told}");
    }

    #[test]
    fn a_key_that_no_header_can_hold_is_told_without_it() {
        for content in [
            &b""[..],
            b" \n",
            b"sk_hid den",
            "sk_hidd\u{e9}n".as_bytes(),
            b"sk_hidden\nsk_hidden",
            b"sk_hidden\xff",
            &[b'x'; 5000],
        ] {
            let (_folder, source) = with_file(content);
            let told = source.read().err().unwrap().to_string();
            assert!(told.contains("API key (") && !told.contains("hid") && !told.contains("xxx"), "{told}");
        }
    }
}
