//! The inside of models, given out one inspection a message.

use std::collections::VecDeque;

use domain::ids::RunName;
use proto::{convert, v1};
use store::{InspectionEntry, Store};
use tonic::Status;

use super::pages::Pages;
use crate::status;

/// The inspections of a run that are still to be given out.
pub(super) struct InspectionsReading {
    pub(super) store: Store,
    pub(super) name: RunName,
    pub(super) entries: VecDeque<InspectionEntry>,
}

impl Pages for InspectionsReading {
    type Page = v1::ReadInspectionsResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadInspectionsResponse>, Status> {
        while let Some(InspectionEntry { step, generation, .. }) = self.entries.pop_front() {
            let found = self.store.inspection(&self.name, step, Some(generation)).await;
            // A newer one may have taken its place meanwhile.
            if let Some((entry, inspection)) = found.map_err(|e| status::of_store(&e))? {
                let InspectionEntry { rolled_back, at, .. } = entry;
                let inspection = Some(convert::inspection_to_wire(inspection));
                return Ok(Some(v1::ReadInspectionsResponse { inspection, rolled_back, at_ms: at.0 }));
            }
        }
        Ok(None)
    }
}
