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
    /// What to wait for: `completed`, `ended` however it ends, or `step=N`
    #[arg(long = "for", value_name = "WHAT", value_parser = read_until, default_value = "completed")]
    pub(crate) until: Until,
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
  phalanx wait digits --for step=10 --timeout 10m";

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

/// What the word after `--for` means.
fn read_until(word: &str) -> Result<Until, String> {
    match (word, word.strip_prefix("step=")) {
        ("completed", _) => Ok(Until::Completed),
        ("ended", _) => Ok(Until::Ended),
        (_, Some(number)) => number.parse().map(Until::Step).map_err(|e| format!("{number:?} is no step: {e}")),
        _ => Err("it is `completed`, `ended` or `step=N`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    #[test]
    fn what_is_waited_for_is_one_word() {
        for (line, expected) in [
            ("wait digits", Some(Until::Completed)),
            ("wait digits --for ended --timeout 10m", Some(Until::Ended)),
            ("wait digits --for step=7", Some(Until::Step(7))),
            ("wait --for step=7 digits", Some(Until::Step(7))),
            ("wait digits --for step=many", None),
            ("wait digits --for step", None),
        ] {
            let parsed = Cli::try_parse_from(["phalanx"].into_iter().chain(line.split(' ')));
            let found = parsed.ok().map(|parsed| match parsed.verb {
                Verb::Wait(args) => args.until,
                _ => panic!("{line} is another verb"),
            });
            assert_eq!(found, expected, "{line}");
        }
    }
}
