//! The page: the files of `dist/`, which are part of the program.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::LazyLock;

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use include_dir::{Dir, include_dir};

use crate::Failure;

static DIST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/dist");

/// A file of the page.
struct Asset {
    plain: &'static [u8],
    /// Compressed, if that makes it smaller.
    gzip: Option<Bytes>,
    content_type: &'static str,
    /// Changes with the content.
    etag: HeaderValue,
}

/// All files by path. They are compressed once, when the first one is asked for.
static ASSETS: LazyLock<BTreeMap<String, Asset>> = LazyLock::new(|| {
    let mut assets = BTreeMap::new();
    collect(&DIST, &mut assets);
    assets
});

fn collect(folder: &'static Dir<'static>, assets: &mut BTreeMap<String, Asset>) {
    for file in folder.files() {
        let path = file.path().to_string_lossy().into_owned();
        assets.insert(path.clone(), Asset::new(&path, file.contents()));
    }
    for inner in folder.dirs() {
        collect(inner, assets);
    }
}

impl Asset {
    fn new(path: &str, plain: &'static [u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        let etag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish())).expect("digits are allowed");
        let gzip = compressed(plain).filter(|gzip| gzip.len() < plain.len());
        Self { plain, gzip, content_type: content_type(path), etag }
    }
}

fn compressed(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    Some(Bytes::from(encoder.finish().ok()?))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Answers with a file of the page. What is no file is a place within the page, which finds its way by itself.
pub(crate) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here", None).into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let is_fixed = path.starts_with("assets/");
    let found = ASSETS.get(path).or_else(|| ASSETS.get("index.html").filter(|_| !is_fixed));
    let Some(asset) = found else {
        return Failure::not_found("there is no such file").into_response();
    };
    // Files in assets/ have their hash in their names; others may change with the program.
    let caching = if is_fixed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut answer = HeaderMap::from_iter([
        (header::ETAG, asset.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ]);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == asset.etag);
    if is_known {
        return (StatusCode::NOT_MODIFIED, answer).into_response();
    }
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    let takes_gzip = headers.get_all(header::ACCEPT_ENCODING).iter().any(|value| takes(value, "gzip"));
    match asset.gzip.clone().filter(|_| takes_gzip) {
        Some(gzip) => {
            answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            (answer, gzip).into_response()
        }
        None => (answer, asset.plain).into_response(),
    }
}

/// Whether a list of encodings has this one, and does not exclude it.
fn takes(accepted: &HeaderValue, encoding: &str) -> bool {
    let list = accepted.to_str().unwrap_or_default();
    list.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let excluded = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case(encoding) && !excluded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_unless_it_is_excluded() {
        for (accepted, expected) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.8", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes(&HeaderValue::from_static(accepted), "gzip"), expected, "{accepted}");
        }
    }

    #[test]
    fn there_is_a_page() {
        assert!(ASSETS["index.html"].plain.starts_with(b"<!doctype html>"));
    }
}
