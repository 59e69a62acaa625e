//! `phalanx init`: writes a job file from the answers to a few questions. Every question has an option, so that scripts
//! need not answer any.

use std::fmt::Display;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use clap::ValueEnum;
use domain::ids::RunName;

use crate::args::{InitArgs, ModelSize, Sides};
use crate::exit::{Exit, Failure};
use crate::export;
use crate::init::{Answers, Data, Kind, Source, patch_for, yaml};
use crate::job;
use crate::output::{escape, note, print};

pub(crate) fn run(args: InitArgs) -> Result<Exit, Failure> {
    let mut questions = Questions { is_asked: !args.yes };
    let kind = match (args.sweep, args.yes) {
        (true, _) => Kind::Sweep,
        (false, true) => Kind::Job,
        (false, false) => match questions.ask("Search hyperparameters in a sweep? (yes, no)", YesNo(false), None)?.0 {
            true => Kind::Sweep,
            false => Kind::Job,
        },
    };
    let default = if kind == Kind::Sweep { "sweep.yaml" } else { "job.yaml" };
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(default));
    if file.exists() && !args.force {
        let message = format!("{} exists already", file.display());
        return Err(Failure::config(anyhow::Error::msg(message)).hint("name another file, or --force replaces it"));
    }
    let answers = answer(&args, &mut questions, kind, &file)?;
    let text = yaml(&answers, file.parent().unwrap_or(Path::new(""))).map_err(Failure::config)?;
    check(&text, &file, kind)?;
    export::write(&file, text.as_bytes())?;
    let (shown, verb) = (escape(&file.display().to_string()), if kind == Kind::Sweep { "sweep" } else { "launch" });
    print(&format!("{shown} is written\n  phalanx {verb} {shown}"))?;
    Ok(Exit::Done)
}

fn answer(args: &InitArgs, questions: &mut Questions, kind: Kind, file: &Path) -> Result<Answers, Failure> {
    let default = FilePath("images".into());
    let given = args.data.clone().map(FilePath);
    let path = questions.ask("Images: a folder with a sub-folder for each class, or an IDX file", default, given)?.0;
    if !path.exists() {
        note(&format!("{} is not here: classes and sizes cannot be looked up", escape(&path.display().to_string())));
    }
    let data = Data::at(&path);
    let side = match data.source {
        Source::Folder(_) => 224,
        Source::Idx { .. } => 28,
    };
    let classes = questions.ask("Classes", data.classes.unwrap_or(10), args.classes)?;
    let sides = data.sides.unwrap_or(Sides { height: side, width: side });
    let sides = questions.ask("Height x width of the images in pixels", sides, args.image)?;
    if patch_for(sides).is_none() {
        let message = format!("images of {sides} pixels cannot be cut into equal squares, or into too many of them");
        return Err(Failure::config(anyhow::Error::msg(message)).hint("scale them, for example to 224x224"));
    }
    let size = questions.ask("Size of the model (tiny, small, base)", ModelSize::Tiny, args.size)?;
    let epochs = questions.ask("Epochs", 30, args.epochs)?;
    let workers = match kind {
        Kind::Job => questions.ask("Workers", 2, args.workers)?,
        Kind::Sweep => questions.ask("Workers of each trial", 1, args.workers)?,
    };
    let name = args.name.clone().unwrap_or_else(|| name_for(file));
    Ok(Answers { name, data, classes, sides, size, epochs, workers, kind })
}

/// Whether what was written can be read: what was answered may be more than a job can be.
fn check(text: &str, file: &Path, kind: Kind) -> Result<(), Failure> {
    match kind {
        Kind::Job => job::read_job_text(text, file).map(|_| ())?,
        Kind::Sweep => job::read_sweep_text(text, file).map(|_| ())?,
    }
    Ok(())
}

/// The file's own name, as far as a run may have it.
fn name_for(file: &Path) -> RunName {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(allowed).take(60).collect();
    let name = name.trim_start_matches(['-', '_', '.']);
    name.parse().unwrap_or_else(|_| RunName::new("job").expect("a name that is allowed"))
}

/// Asks on standard error and reads from standard input.
struct Questions {
    is_asked: bool,
}

impl Questions {
    /// What was `given` on the command line, or else what is answered; nothing means `default`.
    fn ask<T: FromStr + Display>(&mut self, question: &str, default: T, given: Option<T>) -> Result<T, Failure>
    where
        T::Err: Display,
    {
        match given {
            Some(given) => return Ok(given),
            None if !self.is_asked => return Ok(default),
            None => {}
        }
        loop {
            let mut said = std::io::stderr().lock();
            write!(said, "{question} [{default}]: ").and_then(|()| said.flush()).context("cannot ask")?;
            drop(said);
            let mut answer = String::new();
            if std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")? == 0 {
                let error = anyhow::Error::msg("standard input ended before everything was answered");
                return Err(Failure::config(error).hint("--yes takes the defaults, and options answer questions"));
            }
            match answer.trim() {
                "" => return Ok(default),
                answer => match answer.parse() {
                    Ok(parsed) => return Ok(parsed),
                    Err(error) => note(&format!("  {} is no answer: {error}", escape(answer))),
                },
            }
        }
    }
}

struct YesNo(bool);

impl FromStr for YesNo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "yes" | "y" => Ok(Self(true)),
            "no" | "n" => Ok(Self(false)),
            _ => Err("yes or no"),
        }
    }
}

impl Display for YesNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "yes" } else { "no" })
    }
}

struct FilePath(PathBuf);

impl FromStr for FilePath {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl FromStr for ModelSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| "tiny, small or base".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_name() {
        for (file, name) in [("a/my job.yaml", "my-job"), (".hidden", "hidden"), ("...", "job"), ("näh.yaml", "n-h")] {
            assert_eq!(name_for(Path::new(file)).as_str(), name);
        }
    }
}
