//! `phalanx validate`: everything that is wrong with job files, at once.

use proto::convert;

use crate::args::ValidateArgs;
use crate::exit::{Exit, Failure};
use crate::job::{self, JobError};
use crate::output::{escape, escape_lines, note, print};

pub(crate) fn run(args: &ValidateArgs) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &args.files {
        let read = match job::is_sweep(path) {
            true => {
                job::read_sweep(path).map(|spec| (convert::sweep_spec_to_json(&spec), format!("sweep {}", spec.name)))
            }
            false => job::read(path).map(|spec| (convert::spec_to_json(&spec), format!("run {}", spec.name))),
        };
        match read {
            Ok((json, _)) if args.json => print(&json)?,
            Ok((_, what)) => print(&format!("{}: ok, {what}", escape(&path.display().to_string())))?,
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
