//! `phalanx schema`: what files may hold, for editors.

use domain::spec::file::schema;

use crate::args::{SchemaArgs, SchemaOf};
use crate::exit::{Exit, Failure};
use crate::output::print;

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    let schema = match args.of {
        SchemaOf::Job => schema::job(),
        SchemaOf::Sweep => schema::sweep(),
    };
    print(&format!("{schema:#}"))?;
    Ok(Exit::Done)
}
