//! The files of the page, which are part of the binary. They hold no data, so they need no key:
//! a browser that opens a URL can send none, since the key is in the fragment.

use hyper::StatusCode;

use crate::http::{HttpResponse, whole_response};

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageFile {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Declares the files: each with its media type, at `/inspect/` and its name.
macro_rules! page_files {
    ($($name:literal: $media_type:expr),+ $(,)?) => {
        &[$(PageFile {
            path: concat!("/inspect/", $name),
            media_type: $media_type,
            content: include_str!(concat!("page/", $name)),
        },)+]
    };
}

const INDEX: PageFile = PageFile {
    path: super::PAGE,
    media_type: HTML,
    content: include_str!("page/index.html"),
};

const FILES: &[PageFile] = page_files! {
    "style.css": CSS,
    "icon.svg": SVG,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "dom.js": SCRIPT,
    "text.js": SCRIPT,
    "charts.js": SCRIPT,
    "overview.js": SCRIPT,
    "tenants.js": SCRIPT,
    "live.js": SCRIPT,
    "explain.js": SCRIPT,
    "publish.js": SCRIPT,
    "connect.js": SCRIPT,
};

/// Returns the file at a path.
pub(super) fn find(path: &str) -> Option<PageFile> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut files = FILES.iter().chain([&INDEX]);
    files.find(|file| file.path == path).copied()
}

impl PageFile {
    pub(super) fn response(self) -> HttpResponse {
        whole_response(StatusCode::OK, self.media_type, self.content)
    }
}
