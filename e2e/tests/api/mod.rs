//! What the tests of the API lane share: one control plane per test program, and requests with their warnings.
#![allow(dead_code, reason = "each test program uses its part of what they share")]

use std::path::Path;

use anyhow::{Context, Result};
use http::Request;
use kube::Client;
use kube::client::Body;
use lamina_e2e::control_plane::{ControlPlane, Options};
use serde_json::Value;
use tokio::sync::OnceCell;

/// The control plane of this test program, started by whoever asks first; the kernel ends it with the program.
pub async fn shared(name: &str) -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_init(|| async { fresh(name).await.expect("a control plane starts") }).await
}

/// A control plane without any object of ours.
pub async fn fresh(name: &str) -> Result<ControlPlane> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("removing the last run's files")?;
    }
    ControlPlane::start(&folder, Options::default()).await
}

/// What the API server answered to one request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Every warning header.
    pub warnings: Vec<String>,
    /// The object or the refusal.
    pub body: Value,
}

impl Answer {
    /// The sentence of a refusal.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Whether the server did what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends one request and reads answer and warnings.
pub async fn ask(client: &Client, method: &str, path: &str, content_type: &str, body: &str) -> Result<Answer> {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    let request = request.body(Body::from(body.as_bytes().to_vec())).context("writing a request")?;
    send(client, request).await
}

async fn send(client: &Client, request: Request<Body>) -> Result<Answer> {
    let what = format!("{} {}", request.method(), request.uri());
    let response = client.send(request).await.with_context(|| format!("asking {what}"))?;
    let status = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect();
    let bytes = response.into_body().collect_bytes().await.context("reading an answer")?;
    Ok(Answer { status, warnings, body: serde_json::from_slice(&bytes).unwrap_or_default() })
}

/// Sends one request in somebody else's name: what an administrator may do, and a thief with stolen rights tries.
pub async fn ask_as(
    client: &Client,
    caller: &[(&str, &str)],
    method: &str,
    path: &str,
    object: &Value,
) -> Result<Answer> {
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut request = Request::builder().method(method).uri(path).header("content-type", content_type);
    for (name, value) in caller {
        request = request.header(*name, *value);
    }
    let body = if method == "DELETE" { Vec::new() } else { object.to_string().into_bytes() };
    send(client, request.body(Body::from(body)).context("writing a request")?).await
}

/// Creates an object with strict validation.
pub async fn create(client: &Client, path: &str, object: &Value, dry_run: bool) -> Result<Answer> {
    let dry_run = if dry_run { "&dryRun=All" } else { "" };
    let path = format!("{path}?fieldValidation=Strict{dry_run}");
    ask(client, "POST", &path, "application/json", &object.to_string()).await
}

/// Merges a patch into an object.
pub async fn merge(client: &Client, path: &str, patch: &Value) -> Result<Answer> {
    ask(client, "PATCH", path, "application/merge-patch+json", &patch.to_string()).await
}

/// Where `SliceTopology` objects are.
pub const TOPOLOGIES: &str = "/apis/lamina.dev/v1alpha1/slicetopologies";
/// Where `HostState` objects are.
pub const HOST_STATES: &str = "/apis/lamina.dev/v1alpha1/hoststates";
