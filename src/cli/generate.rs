//! `sidewire generate`: writes the manual pages and the shell completions of the command line,
//! for packages. Hidden, since only those who build packages need it.

use std::{fs, io, path::PathBuf};

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, CommandFailure};

/// The flags of `sidewire generate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidewire generate man target/man
  sidewire generate completions target/completions

The command creates the directory. `man` writes sidewire.1 and one page for each command,
`completions` writes sidewire.bash, _sidewire for zsh, and sidewire.fish.")]
pub struct GenerateArgs {
    /// What to write.
    #[arg(value_enum)]
    pub kind: GeneratedKind,
    /// The directory to write to.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// What is generated from the definition of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GeneratedKind {
    /// Manual pages.
    Man,
    /// Completions for bash, zsh and fish.
    Completions,
}

/// Writes the files.
pub(super) fn run(args: &GenerateArgs) -> Result<(), CommandFailure> {
    let written = fs::create_dir_all(&args.directory).and_then(|()| match args.kind {
        GeneratedKind::Man => clap_mangen::generate_to(Cli::command(), &args.directory),
        GeneratedKind::Completions => write_completions(args),
    });
    let shown = args.directory.display();
    written.map_err(|error| CommandFailure::new(format!("cannot write to {shown}: {error}")))
}

fn write_completions(args: &GenerateArgs) -> io::Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = Cli::command();
        let file = match shell {
            Shell::Zsh => "_sidewire",
            Shell::Fish => "sidewire.fish",
            _ => "sidewire.bash",
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "sidewire", &mut script);
        fs::write(args.directory.join(file), script)?;
    }
    Ok(())
}
