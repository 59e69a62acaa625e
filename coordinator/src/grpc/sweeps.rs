//! Sweeps for people and tools.

use std::sync::Arc;

use domain::engine::Event;
use domain::ids::RunName;
use domain::picture::Picture;
use domain::spec::sweep::check;
use proto::convert;
use proto::v1;
use proto::v1::sweeps_server::Sweeps;
use store::Store;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::control::read_name;
use super::pages::{Messages, Pages, messages};
use super::sweep_results::{EvalsReading, results};
use crate::driver::Handle;
use crate::status;

/// Facts in one message; each has some hundred bytes.
const FACTS_MAX: usize = 2_000;

/// Answers people and tools about sweeps.
#[derive(Debug)]
pub(crate) struct SweepsService {
    driver: Handle,
    store: Store,
}

impl SweepsService {
    pub(crate) fn new(driver: Handle, store: Store) -> Self {
        Self { driver, store }
    }

    fn picture(&self) -> Arc<Picture> {
        self.driver.picture().borrow().clone()
    }

    fn known(&self, name: &str) -> Result<RunName, Status> {
        let name = read_name(name)?;
        match self.picture().sweep(&name) {
            Some(_) => Ok(name),
            None => Err(status::no_sweep(&name)),
        }
    }
}

/// A sweep with all its trials.
pub(super) fn whole(picture: &Picture, name: &RunName) -> Result<v1::Sweep, Status> {
    let sweep = picture.sweep(name).ok_or_else(|| status::no_sweep(name))?;
    let trials = sweep.trials().map(|trial| convert::sweep_trial_to_wire(&trial.view)).collect();
    Ok(v1::Sweep { trials, ..convert::sweep_to_wire(sweep) })
}

#[tonic::async_trait]
impl Sweeps for SweepsService {
    async fn submit_sweep(
        &self,
        request: Request<v1::SubmitSweepRequest>,
    ) -> Result<Response<v1::SubmitSweepResponse>, Status> {
        let v1::SubmitSweepRequest { spec_json } = request.into_inner();
        let spec = convert::sweep_spec_from_json(&spec_json).map_err(|e| status::of_message(&e))?;
        check::check(&spec).map_err(|e| status::of_spec(&e))?;
        let name = spec.name.clone();
        let submitted = Event::SweepSubmitted { spec: Box::new(spec) };
        self.driver.request(submitted).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::SubmitSweepResponse { sweep: Some(whole(&self.picture(), &name)?) }))
    }

    async fn get_sweep(&self, request: Request<v1::GetSweepRequest>) -> Result<Response<v1::GetSweepResponse>, Status> {
        let name = read_name(&request.into_inner().name)?;
        Ok(Response::new(v1::GetSweepResponse { sweep: Some(whole(&self.picture(), &name)?) }))
    }

    async fn list_sweeps(
        &self,
        _request: Request<v1::ListSweepsRequest>,
    ) -> Result<Response<v1::ListSweepsResponse>, Status> {
        let picture = self.picture();
        let sweeps = picture.sweeps().map(convert::sweep_to_wire).collect();
        Ok(Response::new(v1::ListSweepsResponse { sweeps }))
    }

    type WatchSweepStream = Messages<v1::WatchSweepResponse>;

    async fn watch_sweep(
        &self,
        request: Request<v1::WatchSweepRequest>,
    ) -> Result<Response<Self::WatchSweepStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let pictures = self.driver.picture();
        Ok(Response::new(messages(Watching { name, pictures, shown: None, last: None, is_over: false })))
    }

    async fn get_sweep_results(
        &self,
        request: Request<v1::GetSweepResultsRequest>,
    ) -> Result<Response<v1::GetSweepResultsResponse>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let facts = self.driver.sweep_facts(name.clone()).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(results(&self.picture(), &self.store, &name, &facts).await?))
    }

    type ReadSweepEvalsStream = Messages<v1::ReadSweepEvalsResponse>;

    async fn read_sweep_evals(
        &self,
        request: Request<v1::ReadSweepEvalsRequest>,
    ) -> Result<Response<Self::ReadSweepEvalsStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let picture = self.picture();
        let sweep = picture.sweep(&name).ok_or_else(|| status::no_sweep(&name))?;
        let trials = sweep.trials().map(|trial| (trial.view.number, trial.view.run.clone())).collect();
        Ok(Response::new(messages(EvalsReading::new(self.store.clone(), trials))))
    }

    type ReadSweepFactsStream = Messages<v1::ReadSweepFactsResponse>;

    async fn read_sweep_facts(
        &self,
        request: Request<v1::ReadSweepFactsRequest>,
    ) -> Result<Response<Self::ReadSweepFactsStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let facts = self.driver.sweep_facts(name).await.map_err(|e| status::of_request(&e))?;
        let facts = facts.iter().map(convert::fact_to_json).collect();
        Ok(Response::new(messages(Facts(facts))))
    }
}

/// A sweep as it is shown to one watcher.
struct Watching {
    name: RunName,
    pictures: watch::Receiver<Arc<Picture>>,
    /// The picture that was shown last.
    shown: Option<u64>,
    last: Option<v1::Sweep>,
    is_over: bool,
}

impl Pages for Watching {
    type Page = v1::WatchSweepResponse;

    async fn next(&mut self) -> Result<Option<v1::WatchSweepResponse>, Status> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let picture = self.pictures.borrow_and_update().clone();
            let sweep = picture.sweep(&self.name).ok_or_else(|| status::no_sweep(&self.name))?;
            self.is_over = sweep.view.state.is_ended();
            let before = self.shown.replace(picture.version());
            if before.is_none_or(|before| sweep.changed > before) {
                let new = sweep.trials().filter(|trial| before.is_none_or(|before| trial.changed > before));
                let trials: Vec<_> = new.map(|trial| convert::sweep_trial_to_wire(&trial.view)).collect();
                let bare = convert::sweep_to_wire(sweep);
                if !trials.is_empty() || self.last.as_ref() != Some(&bare) {
                    self.last = Some(bare.clone());
                    return Ok(Some(v1::WatchSweepResponse { sweep: Some(v1::Sweep { trials, ..bare }) }));
                }
            }
            self.pictures.changed().await.map_err(|_| status::ending())?;
        }
    }
}

/// What is left to be given out.
struct Facts(Vec<String>);

impl Pages for Facts {
    type Page = v1::ReadSweepFactsResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadSweepFactsResponse>, Status> {
        let rest = self.0.split_off(self.0.len().min(FACTS_MAX));
        let facts_json = std::mem::replace(&mut self.0, rest);
        Ok((!facts_json.is_empty()).then_some(v1::ReadSweepFactsResponse { facts_json }))
    }
}
