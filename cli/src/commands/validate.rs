//! `phalanx validate`: everything that is wrong with job files, at once.

use proto::convert;

use crate::args::ValidateArgs;
use crate::exit::{Exit, Failure};
use crate::job::{self, JobError};
use crate::output::{escape, escape_lines, note, print};

pub(crate) fn run(args: &ValidateArgs) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &args.files {
        match job::read(path) {
            Ok(spec) if args.json => print(&convert::spec_to_json(&spec))?,
            Ok(spec) => print(&format!("{}: ok, run {}", escape(&path.display().to_string()), spec.name))?,
            Err(JobError::Wrong(problems)) => {
                note(&escape_lines(&problems.to_string()));
                exit = Exit::Config;
            }
            Err(JobError::Unreadable(error)) => {
                note(&Failure::config(error).to_string());
                exit = Exit::Config;
            }
        }
    }
    Ok(exit)
}
