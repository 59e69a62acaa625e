//! `phalanx doctor`: what keeps people from training, looked for. [`machine`] looks at this machine, [`cluster`] at the
//! coordinator and its workers.

mod cluster;
mod machine;

use serde_json::{Value, json};

use crate::output::{escape, escape_lines};

pub(crate) use self::cluster::{of_no_coordinator, of_ports, of_reached, of_unreachable};
pub(crate) use self::machine::of_machine;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to do.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    fn warn(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn fail(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// A line for each finding, with a line for what to do about it.
pub(crate) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let lines = findings.iter().map(|Finding { check, verdict, text, remedy }| {
        let mut line = format!("{:<5} {check:<width$}  {}", name(*verdict), escape(text));
        if let Some(remedy) = remedy {
            line.push_str(&format!("\n      {:width$}  hint: {}", "", escape_lines(remedy)));
        }
        line
    });
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (warn, fail) = (count(Verdict::Warn), count(Verdict::Fail));
    let last = format!("{} ok, {warn} warn, {fail} fail", count(Verdict::Ok));
    lines.chain([last]).collect::<Vec<_>>().join("\n")
}

/// The same for machines.
pub(crate) fn json(findings: &[Finding]) -> Value {
    let checks: Vec<Value> = findings
        .iter()
        .map(|Finding { check, verdict, text, remedy }| {
            json!({ "check": check, "verdict": name(*verdict), "text": text, "remedy": remedy })
        })
        .collect();
    json!({ "checks": checks, "ok": !has_failed(findings) })
}

/// Whether something does not work.
pub(crate) fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Fail)
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

/// `3.4 GiB`.
fn bytes(bytes: u64) -> String {
    const GIB: f64 = (1 << 30) as f64;
    if bytes >= 1 << 30 { format!("{:.1} GiB", bytes as f64 / GIB) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_line_and_the_last_one_counts() {
        let findings = [
            Finding::ok("memory", "3.0 GiB are free"),
            Finding::warn("threads", "1 core\u{1b}", "take a larger machine"),
            Finding::fail("state directory", "it is a file", "--state-dir DIR takes another"),
        ];
        assert_eq!(
            text(&findings),
            "ok    memory           3.0 GiB are free\n\
             warn  threads          1 core\\u{1b}\n                       hint: take a larger machine\n\
             fail  state directory  it is a file\n                       hint: --state-dir DIR takes another\n\
             1 ok, 1 warn, 1 fail"
        );
        assert_eq!(json(&findings)["checks"][1]["verdict"], "warn");
        assert_eq!(json(&findings)["ok"], false);
        assert!(!has_failed(&findings[..2]));
    }
}
