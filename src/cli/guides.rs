//! `completions` and `man`: what the command line knows of itself, for shells and for `man`.
//!
//! Never written by hand: all of it comes from the definitions that the command line is parsed by.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  migma-eraser completions bash > /etc/bash_completion.d/migma-eraser
      for everybody, from the next login on
  migma-eraser completions zsh > \"${fpath[1]}/_migma-eraser\"
      for zsh; then `compinit`
  migma-eraser completions fish > ~/.config/fish/completions/migma-eraser.fish
      for fish
  source <(migma-eraser completions bash)
      for this shell alone";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  migma-eraser man | man -l -
      read the first page now
  migma-eraser man --out /usr/local/share/man/man1
      install all pages: `man migma-eraser`, `man migma-eraser-dead-replay`";

/// What `completions` takes.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell that is to complete.
    shell: Shell,
}

/// What `man` takes.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write a page for every command into this folder, which is made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a script that teaches a shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the first manual page, or writes all of them.
///
/// # Errors
/// The folder, or standard output, cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &args.out else {
        super::print(&page(&command)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let told = || format!("cannot write manual pages to {}; name a folder that you may write to", folder.display());
    std::fs::create_dir_all(folder).with_context(told)?;
    let mut count = 0;
    for (name, page) in pages(&command)? {
        std::fs::write(folder.join(format!("{name}.1")), page).with_context(told)?;
        count += 1;
    }
    super::print(&format!("{count} pages are in {}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A command's page, and those of all commands below it, with their names.
fn pages(command: &Command) -> std::io::Result<Vec<(String, String)>> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut all = vec![(name, page(command)?)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all.extend(pages(below)?);
    }
    Ok(all)
}

fn page(command: &Command) -> std::io::Result<String> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built() -> Command {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        command
    }

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let pages = pages(&built()).unwrap();
        for name in ["migma-eraser", "migma-eraser-run", "migma-eraser-watch", "migma-eraser-man"] {
            let (_, page) = pages.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} lacks"));
            assert!(page.contains("Examples:") && page.contains("migma\\-eraser"), "{page}");
        }
        assert!(pages.iter().all(|(name, _)| !name.ends_with("-help")));
    }
}
