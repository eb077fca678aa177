//! The token that orders over the admin address need, and where it comes from.
//!
//! Never a flag, where every user of the machine could read it; never quoted in a fault.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Config;
use super::fault::{ConfigError, Fault, Source};
use super::secret::{Secret, read_some};

/// The environment variable that holds the token, for the worker and for commands.
pub const ADMIN_TOKEN_VARIABLE: &str = "MIGMA_ERASER_ADMIN_TOKEN";

/// What a token may be long, in bytes.
const LONGEST: usize = 4096;

/// Where the token is read, each time that it is needed.
#[derive(Clone)]
pub enum AdminToken {
    /// Nowhere: there is none.
    None,
    /// From [`ADMIN_TOKEN_VARIABLE`], which stays as it was at the start.
    Env(Secret),
    /// From the file `admin.token_file`.
    File {
        /// Where it is.
        path: PathBuf,
        /// Where that is set.
        set_by: Source,
    },
}

impl AdminToken {
    /// Finds out where the token comes from, without reading a file. `variable` is the value of
    /// [`ADMIN_TOKEN_VARIABLE`]: it wins over `admin.token_file`, and counts as unset where it is empty.
    ///
    /// # Errors
    /// The variable is no text, or none that a header can hold.
    pub fn find(config: &Config, variable: Option<OsString>) -> Result<Self, ConfigError> {
        let source = Source::Env(ADMIN_TOKEN_VARIABLE.to_owned());
        match variable.map(OsString::into_string).transpose() {
            Err(_) => return Err(unusable(&source, "is not UTF-8").into()),
            Ok(Some(text)) if !text.trim().is_empty() => return Ok(Self::Env(checked(&text, &source)?)),
            Ok(_) => {}
        }
        Ok(match &config.admin.token_file {
            Some(path) => {
                let set_by = config.source("admin.token_file").cloned().unwrap_or(Source::Default);
                Self::File { path: path.clone(), set_by }
            }
            None => Self::None,
        })
    }

    /// Reads the token as it is now, without the white space around it. Blocks for as long as the file does.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is empty, too long, or fit for no HTTP header.
    pub fn read(&self) -> Result<Option<Secret>, ConfigError> {
        match self {
            Self::None => Ok(None),
            Self::Env(secret) => Ok(Some(secret.clone())),
            Self::File { path, set_by } => {
                let bytes = read_some(path).map_err(|error| {
                    Fault::new(
                        "admin.token_file",
                        Some(set_by),
                        format!("cannot read {}: {error}", path.display()),
                        format!("make it readable, or set {ADMIN_TOKEN_VARIABLE}"),
                    )
                })?;
                let file = Source::File(path.clone());
                let text = String::from_utf8(bytes).map_err(|_| unusable(&file, "is not UTF-8"))?;
                checked(&text, &file).map(Some)
            }
        }
    }
}

fn checked(text: &str, source: &Source) -> Result<Secret, ConfigError> {
    let token = text.trim();
    let problem = match token.bytes().position(|byte| !byte.is_ascii_graphic()) {
        _ if token.is_empty() => "is empty".to_owned(),
        _ if token.len() > LONGEST => format!("is longer than {LONGEST} bytes"),
        Some(at) => format!("holds a character at byte {} that cannot stand in an HTTP header", at + 1),
        None => return Ok(Secret::new(token)),
    };
    Err(unusable(source, problem).into())
}

fn unusable(source: &Source, problem: impl Into<String>) -> Fault {
    Fault::new("admin token", Some(source), problem, "put a long random text there and nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_file_which_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " first\n").unwrap();
        let config = Config::from_toml("t.toml", &format!("[admin]\ntoken_file = {path:?}")).unwrap();
        let from_env = AdminToken::find(&config, Some("t0\n".into())).unwrap();
        assert_eq!(from_env.read().unwrap().unwrap().expose(), "t0");
        let from_file = AdminToken::find(&config, Some(" ".into())).unwrap();
        assert_eq!(from_file.read().unwrap().unwrap().expose(), "first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(from_file.read().unwrap().unwrap().expose(), "second");
        let nowhere = AdminToken::find(&Config::from_toml("t.toml", "").unwrap(), None).unwrap();
        assert!(nowhere.read().unwrap().is_none());
    }

    #[test]
    fn a_token_that_no_header_can_hold_is_told_without_it() {
        let config = Config::from_toml("t.toml", "").unwrap();
        for text in ["sk hidden", "hidd\u{e9}n", &"hidden".repeat(1000)] {
            let told = AdminToken::find(&config, Some(text.into())).err().unwrap().to_string();
            assert!(told.contains("admin token (") && !told.contains("hid"), "{told}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let config = Config::from_toml("t.toml", &format!("[admin]\ntoken_file = {path:?}")).unwrap();
        let token = AdminToken::find(&config, None).unwrap();
        let told = token.read().err().unwrap().to_string();
        assert!(told.contains("admin.token_file (t.toml): cannot read"), "{told}");
        std::fs::write(&path, "\n").unwrap();
        assert!(token.read().err().unwrap().to_string().contains("is empty"));
    }
}
