//! The kinds of the Prometheus operator, out of its Go module, whose content is pinned; nothing of it is compiled or run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::program::output_of;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/monitoring");
const MODULE: &str = "github.com/prometheus-operator/prometheus-operator";

/// The definitions of PodMonitor, ServiceMonitor and PrometheusRule, as files.
pub async fn monitoring_kinds() -> Result<Vec<PathBuf>> {
    go(&["mod", "download", MODULE]).await?;
    let folder = go(&["list", "-m", "-f", "{{.Dir}}", MODULE]).await?;
    let kinds = Path::new(folder.trim()).join("example/prometheus-operator-crd");
    let file = |kind: &str| kinds.join(format!("monitoring.coreos.com_{kind}.yaml"));
    Ok(["podmonitors", "servicemonitors", "prometheusrules"].map(file).into())
}

async fn go(arguments: &[&str]) -> Result<String> {
    let mut go = Command::new("go");
    go.current_dir(FOLDER).args(arguments).env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
    output_of(&mut go).await.with_context(|| format!("go {}", arguments.join(" ")))
}
