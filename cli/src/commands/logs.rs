//! `phalanx logs`: what coordinator and workers wrote about a run.

use proto::v1::{LogLine, ReadLogResponse};

use crate::args::LogsArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{escape, print, utc};
use crate::session::Session;

pub(crate) async fn run(args: LogsArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let printed = print_log(&mut session.client, &args).await;
    session.close().await?;
    printed.map(|()| Exit::Done)
}

async fn print_log(client: &mut Client, args: &LogsArgs) -> Result<(), Failure> {
    let mut portions = client.log(&args.run, args.follow).await?;
    while let Some(ReadLogResponse { lines }) = portions.message().await? {
        for line in &lines {
            print(&line_text(line))?;
        }
    }
    Ok(())
}

fn line_text(line: &LogLine) -> String {
    let LogLine { sequence: _, at_ms, source, level, text } = line;
    format!("{} {:<5} {}: {}", utc(*at_ms), escape(level), escape(source), escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_forge_another() {
        let line = LogLine {
            sequence: 1,
            at_ms: 0,
            source: "coordinator".to_owned(),
            level: "info".to_owned(),
            text: "a\n1970-01-01T00:00:00Z error coordinator: b\u{1b}[2J".to_owned(),
        };
        assert_eq!(
            line_text(&line),
            "1970-01-01T00:00:00Z info  coordinator: a\\n1970-01-01T00:00:00Z error coordinator: b\\u{1b}[2J"
        );
    }
}
