use std::time::Duration;

use clap::Args;
use domain::ids::RunName;

use super::PlaceArgs;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx top")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx watch digits --json")]
pub(crate) struct WatchArgs {
    /// The run or sweep
    #[arg(value_name = "RUN|SWEEP")]
    pub(crate) name: RunName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print one JSON object per line on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = WAIT_EXAMPLE)]
pub(crate) struct WaitArgs {
    /// The run or sweep
    #[arg(value_name = "RUN|SWEEP")]
    pub(crate) name: RunName,
    /// What to wait for: `completed`, `ended` however it ends, or `step N`
    #[arg(long = "for", value_name = "WHAT", num_args = 1..=2, default_value = "completed")]
    pub(crate) until: Vec<String>,
    /// Give up after so long, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

const WAIT_EXAMPLE: &str = "\
Exit codes:
  0   it is as was waited for
  5   it failed
  75  it was stopped before, or the time is over

Example:
  phalanx wait digits --for step 10 --timeout 10m";

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// It completed.
    Completed,
    /// It came to rest, however.
    Ended,
    /// So many steps are durable.
    Step(u64),
}

impl WaitArgs {
    /// What the words after `--for` mean.
    pub(crate) fn until(&self) -> Result<Until, String> {
        let words: Vec<&str> = self.until.iter().flat_map(|word| word.split([' ', '='])).collect();
        match words[..] {
            ["completed"] => Ok(Until::Completed),
            ["ended"] => Ok(Until::Ended),
            ["step", number] => number.parse().map(Until::Step).map_err(|e| format!("--for step {number:?}: {e}")),
            _ => Err(format!("--for {:?} is not `completed`, `ended` or `step N`", words.join(" "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    #[test]
    fn what_is_waited_for_is_one_or_two_words() {
        for (line, expected) in [
            ("wait digits", Some(Until::Completed)),
            ("wait digits --for ended --timeout 10m", Some(Until::Ended)),
            ("wait digits --for step 7", Some(Until::Step(7))),
            ("wait --for step=7 digits", Some(Until::Step(7))),
            ("wait digits --for step many", None),
            ("wait digits --for step", None),
            ("wait digits --for completed 7", None),
        ] {
            let parsed = Cli::try_parse_from(["phalanx"].into_iter().chain(line.split(' '))).unwrap();
            let Verb::Wait(args) = parsed.verb else { panic!("{line} is another verb") };
            assert_eq!(args.until().ok(), expected, "{line}");
        }
    }
}
