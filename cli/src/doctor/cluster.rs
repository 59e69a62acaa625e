//! What can be seen of a coordinator and its workers.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use proto::v1::{GetClusterResponse, Stall, Worker};

use super::Finding;
use crate::output::{count, stalled, worker_name};

/// Clocks further apart make the times in logs hard to compare. Nothing is decided by them.
const SKEW_MAX_MS: u64 = 2000;

/// Longer than this for an answer, and commands feel slow.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// Nobody holds the state directory, and none was named.
pub(crate) fn of_no_coordinator() -> Finding {
    Finding::ok("coordinator", "none is running; `phalanx launch` and `phalanx sweep` bring their own")
}

/// It does not answer.
pub(crate) fn of_unreachable(url: &str, why: &str) -> Finding {
    let remedy = "start it with `phalanx coordinator`, see its log, or look at --coordinator and firewalls";
    Finding::fail("coordinator", format!("{url} does not answer: {why}"), remedy)
}

/// Whether a coordinator could listen where it does when nothing else is said.
pub(crate) fn of_ports(addresses: &[(&'static str, SocketAddr)], coordinator: Option<&str>) -> Finding {
    let used_by_ours =
        |address: &SocketAddr| coordinator.is_some_and(|url| url.ends_with(&format!(":{}", address.port())));
    let taken: Vec<String> = addresses
        .iter()
        .filter(|(_, address)| !used_by_ours(address))
        .filter_map(|(option, address)| Some((option, address, TcpListener::bind(address).err()?)))
        .map(|(option, address, error)| format!("{address} ({option}): {error}"))
        .collect();
    if taken.is_empty() {
        let shown: Vec<String> = addresses.iter().map(|(_, address)| address.to_string()).collect();
        return Finding::ok("ports", format!("{} are free or the coordinator's", shown.join(" and ")));
    }
    let text = format!("not free: {}", taken.join(", "));
    Finding::warn("ports", text, "if `phalanx coordinator` refuses them, port 0 in these options takes a free one")
}

/// What an answer tells that took `round_trip` and came at `now_ms`.
pub(crate) fn of_reached(url: &str, answer: &GetClusterResponse, round_trip: Duration, now_ms: u64) -> Vec<Finding> {
    let mut findings = vec![of_coordinator(url, &answer.version, round_trip)];
    findings.push(of_clock(answer.now_ms.abs_diff(now_ms).saturating_sub(round_trip.as_millis() as u64)));
    findings.extend(answer.stall.as_ref().map(|stall| of_stall(stall, answer.now_ms)));
    findings.push(of_workers(url, &answer.workers));
    findings.extend(of_addresses(&answer.workers));
    findings
}

fn of_coordinator(url: &str, version: &str, round_trip: Duration) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let milliseconds = round_trip.as_secs_f64() * 1000.0;
    let text = format!("{url} answers in {milliseconds:.1} ms");
    if version != ours {
        let theirs = if version.is_empty() { "an older one" } else { version };
        let text = format!("{text}; its version is {theirs}, this one is {ours}");
        return Finding::warn("coordinator", text, "use the same version everywhere");
    }
    if round_trip > ROUND_TRIP_MAX {
        return Finding::warn("coordinator", text, "look at the network, and at what else keeps its machine busy");
    }
    Finding::ok("coordinator", format!("{text}, version {version}"))
}

fn of_clock(skew_ms: u64) -> Finding {
    if skew_ms > SKEW_MAX_MS {
        let text = format!("this machine and the coordinator's are {:.0} s apart", skew_ms as f64 / 1000.0);
        return Finding::warn("clock", text, "training does not mind, but times in logs do: set up NTP");
    }
    Finding::ok("clock", "as the coordinator's")
}

fn of_stall(stall: &Stall, now_ms: u64) -> Finding {
    let remedy = "workers go on and nothing is lost; see whether the disk of the coordinator's state is full";
    Finding::fail("store", stalled(stall, now_ms), remedy)
}

fn of_workers(url: &str, workers: &[Worker]) -> Finding {
    let (connected, away): (Vec<&Worker>, Vec<&Worker>) = workers.iter().partition(|worker| worker.connected);
    if connected.is_empty() {
        let remedy = format!("phalanx worker --coordinator {url}");
        return Finding::warn("workers", "none is connected: nothing can be trained", remedy);
    }
    let busy = connected.iter().filter(|worker| !worker.run.is_empty()).count();
    let text = format!("{} connected, {busy} of them at work", count(connected.len() as u64, "worker"));
    if away.is_empty() {
        return Finding::ok("workers", text);
    }
    let names: Vec<String> =
        away.iter().map(|worker| format!("{} on {}", worker_name(worker.id), worker.host)).collect();
    let remedy = "they come back by themselves if they live; otherwise start others";
    Finding::warn("workers", format!("{text}; away: {}", names.join(", ")), remedy)
}

/// Workers of several machines must not tell each other addresses that mean "this machine".
fn of_addresses(workers: &[Worker]) -> Option<Finding> {
    let hosts: BTreeSet<&str> = workers.iter().map(|worker| worker.host.as_str()).collect();
    if hosts.len() < 2 {
        return None;
    }
    let is_local = |address: &str| address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    let local: Vec<String> = workers
        .iter()
        .filter(|w| is_local(&w.peer_address))
        .map(|w| format!("{} on {}", worker_name(w.id), w.host))
        .collect();
    if local.is_empty() {
        return Some(Finding::ok("addresses", format!("workers on {} machines, none at a local address", hosts.len())));
    }
    let text = format!("workers on other machines cannot reach {}", local.join(", "));
    Some(Finding::fail("addresses", text, "start them with --bind IP, the address at which others reach them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Fail, Ok as Fine, Warn};

    fn worker(host: &str, peer_address: &str, connected: bool) -> Worker {
        Worker { host: host.to_owned(), peer_address: peer_address.to_owned(), connected, ..Worker::default() }
    }

    #[test]
    fn what_an_answer_tells() {
        let version = env!("CARGO_PKG_VERSION");
        let (here, there) = (worker("a", "127.0.0.1:1", true), worker("b", "10.0.0.2:1", true));
        let away = worker("a", "127.0.0.1:1", false);
        let check = |version: &str, now_ms, workers: &[&Worker], expected: &[Verdict]| {
            let workers = workers.iter().map(|worker| (*worker).clone()).collect();
            let answer = GetClusterResponse { version: version.to_owned(), now_ms, workers, ..Default::default() };
            let findings = of_reached("http://a:1", &answer, Duration::from_millis(3), 100_000);
            let verdicts: Vec<Verdict> = findings.iter().map(|finding| finding.verdict).collect();
            assert_eq!(verdicts, expected, "{findings:?}");
        };
        check(version, 100_000, &[&here], &[Fine, Fine, Fine]);
        check("0.0.1", 110_000, &[], &[Warn, Warn, Warn]);
        check("", 90_000, &[&here, &away], &[Warn, Warn, Warn]);
        check(version, 100_000, &[&there, &there], &[Fine, Fine, Fine]);
        check(version, 100_000, &[&here, &there], &[Fine, Fine, Fine, Fail]);
        let there_too = worker("c", "10.0.0.3:1", true);
        check(version, 100_000, &[&there, &there_too], &[Fine, Fine, Fine, Fine]);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_a_failure_with_its_cause() {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let stall = Some(Stall { cause: "No space\u{1b}[31m left".to_owned(), since_ms: 97_000 });
        let answer = GetClusterResponse { version, now_ms: 100_000, stall, ..Default::default() };
        let findings = of_reached("http://a:1", &answer, Duration::from_millis(3), 100_000);
        let text = "for 3.0 s the store cannot be written: No space\u{1b}[31m left";
        assert!(findings.iter().any(|one| one.verdict == Fail && one.text == text), "{findings:?}");
    }

    #[test]
    fn a_port_that_another_program_has_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let found = of_ports(&[("--listen", address)], None);
        assert_eq!(found.verdict, Warn);
        assert!(found.text.contains(&format!("{address} (--listen)")), "{}", found.text);
        assert_eq!(of_ports(&[("--listen", address)], Some(&format!("http://{address}"))).verdict, Fine);
        drop(taken);
        assert_eq!(of_ports(&[("--listen", address)], None).verdict, Fine);
    }
}
