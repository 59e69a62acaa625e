//! `phalanx audit`: proves from the ledger that every sample was read exactly once per epoch.

use domain::audit::{AuditReport, Auditor, EpochTally, Section, Tally};
use domain::ids::{RunName, Step};
use proto::convert;
use proto::v1::{ReadLedgerResponse, Run};
use serde_json::json;

use crate::args::AuditArgs;
use crate::client::{Client, spec_of};
use crate::exit::{Exit, Failure};
use crate::output::{count, print, table};
use crate::session::Session;

/// Epochs that are shown one by one; of more, the first ones and those with something wrong.
const EPOCHS_SHOWN: usize = 20;

pub(crate) async fn run(args: AuditArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let audited = audit(&mut session.client, &args.run).await;
    session.close().await?;
    let report = audited?;
    if args.json {
        print(&json!({ "run": args.run, "clean": report.is_clean(), "report": report }).to_string())?;
    } else {
        print(&report_text(&report))?;
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Failed })
}

/// The most copies of copies: a sweep has no more trials.
const ANCESTORS_MAX: usize = 1_000_000;

/// Reads the whole ledger of a run and checks it against the plan, as far as the run has come. That of a trial that was
/// copied from another begins with the other's.
pub(crate) async fn audit(client: &mut Client, name: &RunName) -> Result<AuditReport, Failure> {
    let run = client.run(name).await?;
    if run.train_samples == 0 {
        let message = format!("run {name} has not read anything yet");
        return Err(Failure::config(anyhow::Error::msg(message)));
    }
    let plan = spec_of(&run)?.batch_plan(run.train_samples);
    let mut auditor = Auditor::new(plan).map_err(Failure::config)?;
    let mut through = run.step.max(run.parent_step);
    for section in Section::history(name.clone(), ancestors(client, run).await?) {
        let mut portions = client.ledger(&section.run).await?;
        while let Some(ReadLedgerResponse { steps }) = portions.message().await? {
            for line in steps.into_iter().map(convert::ledger_step_from_wire).filter(|line| section.holds(line)) {
                // A run that is being trained goes on while its ledger is read.
                if !line.rolled_back {
                    through = through.max(line.step.0);
                }
                auditor.observe(&line);
            }
        }
    }
    Ok(auditor.finish(Step(through)))
}

/// The runs that a run was copied from, the nearest first, each with the step at which it was.
async fn ancestors(client: &mut Client, mut run: Run) -> Result<Vec<(RunName, Step)>, Failure> {
    let mut ancestors = Vec::new();
    while !run.parent.is_empty() && ancestors.len() < ANCESTORS_MAX {
        let parent: RunName = run.parent.parse().map_err(Failure::config)?;
        ancestors.push((parent.clone(), Step(run.parent_step)));
        run = client.run(&parent).await?;
    }
    Ok(ancestors)
}

fn report_text(report: &AuditReport) -> String {
    let has_fault = |tally: &Tally| tally.missing + tally.duplicated + tally.foreign > 0;
    let shown: Vec<&EpochTally> = report
        .epochs
        .iter()
        .enumerate()
        .filter(|(i, epoch)| *i < EPOCHS_SHOWN || has_fault(&epoch.tally))
        .map(|(_, epoch)| epoch)
        .collect();
    let rows: Vec<[String; 6]> = shown
        .iter()
        .map(|EpochTally { epoch, tally }| {
            let Tally { expected, read, missing, duplicated, foreign } = tally;
            [(epoch + 1).to_string()]
                .into_iter()
                .chain([expected, read, missing, duplicated, foreign].map(|n| n.to_string()))
                .collect::<Vec<_>>()
                .try_into()
                .expect("one and five cells")
        })
        .collect();
    let mut lines = vec![table(["EPOCH", "PLANNED", "READ", "MISSING", "DUPLICATED", "FOREIGN"], &rows)];
    let hidden = report.epochs.len() as u64 - shown.len() as u64 + report.epochs_unlisted;
    if hidden > 0 {
        lines.push(format!("and {}", count(hidden, "more epoch")));
    }
    for finding in &report.findings {
        lines.push(finding.to_string());
    }
    let AuditReport { steps, rolled_back_steps, rolled_back_samples, total, .. } = report;
    lines.push(format!(
        "{}, {} read; {} ({}) rolled back",
        count(*steps, "step"),
        count(total.read, "sample"),
        count(*rolled_back_steps, "step"),
        count(*rolled_back_samples, "sample"),
    ));
    lines.push(report.verdict());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(epochs: u64) -> AuditReport {
        let tally = Tally { expected: 10, read: 10, ..Tally::default() };
        let total = Tally { expected: 10 * epochs, read: 10 * epochs, ..Tally::default() };
        let epochs = (0..epochs).map(|epoch| EpochTally { epoch, tally }).collect();
        AuditReport { steps: 7, epochs, total, ..AuditReport::default() }
    }

    #[test]
    fn a_clean_ledger_says_so() {
        assert_eq!(
            report_text(&report(2)),
            "EPOCH  PLANNED  READ  MISSING  DUPLICATED  FOREIGN\n\
             1      10       10    0        0           0\n\
             2      10       10    0        0           0\n\
             7 steps, 20 samples read; 0 steps (0 samples) rolled back\n\
             0 missing, 0 duplicated"
        );
    }

    #[test]
    fn a_fault_is_shown_however_late_it_comes() {
        let mut bad = report(100);
        bad.epochs[90].tally.missing = 1;
        bad.total.missing = 1;
        bad.missing_steps = 2;
        let text = report_text(&bad);
        assert!(text.contains("\n91     10       10    1        0           0\nand 79 more epochs\n"), "{text}");
        assert!(text.ends_with("\n1 missing, 0 duplicated, 2 steps not in the ledger"), "{text}");
    }
}
