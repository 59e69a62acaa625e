//! `phalanx doctor`: checks this machine and its cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};

use crate::args::DoctorArgs;
use crate::client::Client;
use crate::doctor::{self, Finding};
use crate::exit::{Exit, Failure};
use crate::output::print;
use crate::session::live_coordinator;

/// Where `phalanx coordinator` listens when nothing else is said.
const DEFAULT_PORTS: [(&str, SocketAddr); 2] = [
    ("--listen", SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070)),
    ("--http", SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7788)),
];

/// A coordinator that does not answer within this time does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    let mut findings = doctor::of_machine(&args.place.state_dir.state_dir);
    let url = live_coordinator(&args.place);
    findings.push(doctor::of_ports(&DEFAULT_PORTS, url.as_deref()));
    match &url {
        Some(url) => findings.extend(of_coordinator(url).await),
        None => findings.push(doctor::of_no_coordinator()),
    }
    if args.json {
        print(&doctor::json(&findings).to_string())?;
    } else {
        print(&doctor::text(&findings))?;
    }
    Ok(if doctor::has_failed(&findings) { Exit::Failed } else { Exit::Done })
}

async fn of_coordinator(url: &str) -> Vec<Finding> {
    let asked = async {
        let mut client = Client::connect(url).await?;
        // Connecting is no part of an answer.
        let began = Instant::now();
        let answer = client.cluster().await?;
        Ok::<_, Failure>((answer, began.elapsed()))
    };
    match timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok((answer, round_trip))) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            doctor::of_reached(url, &answer, round_trip, now.as_millis() as u64)
        }
        Ok(Err(failure)) => vec![doctor::of_unreachable(url, failure.to_string().trim_start_matches("error: "))],
        Err(_) => vec![doctor::of_unreachable(url, &format!("nothing came for {} s", ANSWER_LIMIT.as_secs()))],
    }
}
