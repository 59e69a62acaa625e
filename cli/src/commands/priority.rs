//! `phalanx priority`: changes who is next.

use crate::args::PriorityArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::print;
use crate::session::must_be_live;

pub(crate) async fn run(args: PriorityArgs) -> Result<Exit, Failure> {
    let PriorityArgs { name, priority, place } = args;
    let mut client = Client::connect(&must_be_live(&place)?).await?;
    client.set_priority(&name, priority).await?;
    print(&format!("{name} has priority {priority}"))?;
    Ok(Exit::Done)
}
