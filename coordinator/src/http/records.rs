//! What is made from the records and the ledger of a run.

use dashboard::{Failure, Series, SeriesQuery, StatusCode};
use domain::audit::{AuditError, AuditReport, Auditor};
use domain::batch::BatchPlan;
use domain::ids::{Generation, Step};
use domain::picture::RunPicture;
use domain::record::{self, Record};
use domain::series::Sampler;
use store::{LedgerCursor, LedgerStep, PAGE_MAX, Store, StoreError};

use super::samplers::Samplers;
use crate::status;

/// Steps of the ledger read at once.
const LEDGER_STEPS: usize = 64;
/// Generations of which steps that were taken back are shown, the newest ones.
const GENERATIONS_MAX: usize = 20;

/// The figures of a run's steps. They are read page by page, so that others can read between.
pub(super) async fn series(
    store: &Store,
    kept: &Samplers,
    run: &RunPicture,
    query: SeriesQuery,
) -> Result<Series, StoreError> {
    let SeriesQuery { run: name, steps, points } = query;
    let (from, to) = (Step((*steps.start()).max(1)), Step(*steps.end()));
    let (key, generation) = ((name.clone(), from, points), run.view.generation);
    let mut live = kept.take(&key, generation, to, Sampler::new(from, to, points));
    if live.steps() == 0 && from > Step(1) {
        live = live.begun_after(store.micros_before(&name, from).await?);
    }
    let mut after = live.through().unwrap_or(Step(from.0 - 1));
    'pages: loop {
        let records = store.read_records(&name, after, PAGE_MAX).await?;
        let Some(last) = records.last() else { break };
        after = last.position().step;
        for record in &records {
            match record {
                Record::Step(step) if step.step > to => break 'pages,
                Record::Step(step) => live.observe(step, run.samples_of(step)),
                Record::Eval(_) => {}
            }
        }
    }
    kept.keep(key, generation, live.clone());
    let mut rolled_back: Vec<(Generation, Sampler)> = Vec::new();
    let mut behind = None;
    loop {
        let steps = store.read_rolled_back(&name, from, to, behind, PAGE_MAX).await?;
        let Some(last) = steps.last() else { break };
        behind = Some((last.generation, last.step));
        for step in &steps {
            if rolled_back.last().is_none_or(|(generation, _)| *generation != step.generation) {
                if rolled_back.len() == GENERATIONS_MAX {
                    rolled_back.remove(0);
                }
                rolled_back.push((step.generation, Sampler::new(from, to, points)));
            }
            if let Some((_, sampler)) = rolled_back.last_mut() {
                sampler.observe(step, run.samples_of(step));
            }
        }
    }
    Ok(Series { live, rolled_back, version: run.changed })
}

/// The ledger of a run against its plan, as far as the run has come.
pub(super) async fn audit(store: &Store, run: &RunPicture, plan: BatchPlan) -> Result<AuditReport, Failure> {
    let invalid = |e: AuditError| Failure::new(StatusCode::CONFLICT, e.to_string(), None);
    let mut auditor = Auditor::new(plan).map_err(invalid)?;
    let mut through = run.view.step;
    let mut next = Some(LedgerCursor::default());
    while let Some(after) = next {
        let page = store.read_ledger(&run.view.name, after, LEDGER_STEPS).await;
        let (steps, cursor) = page.map_err(|e| status::failure(&status::of_store(&e)))?;
        next = cursor;
        for step in steps {
            // A run that is being trained goes on while its ledger is read.
            if !step.rolled_back {
                through = through.max(step.step);
            }
            let LedgerStep { step, generation, rolled_back, reads } = step;
            auditor.observe(&record::LedgerStep { step, generation, rolled_back, reads });
        }
    }
    Ok(auditor.finish(through))
}
