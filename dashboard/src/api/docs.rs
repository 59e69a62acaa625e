//! What there is to be asked, for programs (OpenAPI) and people.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use super::{act, cluster, export, inspection, run, series, store, sweep};
use crate::stream;

#[derive(OpenApi)]
#[openapi(
    info(title = "Phalanx", description = "The coordinator of a cluster. Times are milliseconds since the Unix epoch; \
        numbers that are not finite are the texts NaN, Infinity and -Infinity."),
    paths(
        cluster::cluster, cluster::events, store::store, stream::stream,
        run::run, series::series, run::log, run::ledger, run::model,
        inspection::inspections, inspection::inspection, inspection::histograms,
        sweep::sweep, sweep::decisions,
        act::stop, act::resume, act::stop_sweep, act::resume_sweep,
        act::priority, act::priority_of_sweep, act::pin, act::unpin, act::drain,
        act::undrain,
        export::run, export::sweep,
    ),
    tags(
        (name = "cluster"), (name = "runs"), (name = "sweeps"), (name = "actions"), (name = "export"), (name = "stream")
    )
)]
struct Description;

static OPENAPI: LazyLock<String> =
    LazyLock::new(|| Description::openapi().to_json().expect("a description has only string keys"));

/// Answers with the description for programs.
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.as_str()).into_response()
}

/// Answers with the page for people.
pub(crate) async fn page() -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(page_text);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE.as_str()).into_response()
}

/// A plain page without scripts, made from the description.
fn page_text() -> String {
    let description: serde_json::Value = serde_json::from_str(&OPENAPI).expect("it was just written");
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Phalanx API</title><h1>Phalanx API</h1>\n\
         <p>Everything in one file for programs: <a href=\"/api/openapi.json\">/api/openapi.json</a>. \
         Metrics for Prometheus: <a href=\"/metrics\">/metrics</a>.</p>\n<dl>\n",
    );
    let text = |value: &serde_json::Value, key: &str| escaped(value[key].as_str().unwrap_or_default());
    for (path, methods) in description["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            page.push_str(&format!("<dt><code>{} {}</code>\n<dd>", method.to_uppercase(), escaped(path)));
            page.push_str(&format!("<p>{} {}</p>", text(operation, "summary"), text(operation, "description")));
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, what) = (text(parameter, "name"), text(parameter, "description"));
                page.push_str(&format!("<p><code>{name}</code> {what}</p>"));
            }
            page.push('\n');
        }
    }
    page.push_str("</dl></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The router and the description are written apart.
    #[test]
    fn everything_that_is_routed_is_described() {
        let source = include_str!("mod.rs");
        let routed = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"'));
        let routed: Vec<&str> = routed.map(|(path, _)| path).filter(|path| path.starts_with("/api/v1/")).collect();
        let description: serde_json::Value = serde_json::from_str(&OPENAPI).unwrap();
        let described: Vec<&String> = description["paths"].as_object().unwrap().keys().collect();
        assert!(routed.len() > 12 && routed.len() == described.len(), "{routed:?} {described:?}");
        for path in routed {
            assert!(described.iter().any(|other| *other == path), "{path} is not described");
        }
        for (before, _) in OPENAPI.match_indices("\"#/components/schemas/") {
            let name = OPENAPI[before + 1..].split(['"', '/']).nth(3).unwrap();
            assert!(!description["components"]["schemas"][name].is_null(), "{name} is referred to, and not described");
        }
        assert!(page_text().contains("<code>POST /api/v1/runs/{name}/stop</code>"));
    }
}
