//! Builds the tools that judge a chart without Helm or a cluster: helm-unittest and kubeconform.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::go_program::{GoBuilder, GoModule};

const MODULE: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/chart-tools"), tags: "", sources: &[] };

/// helm-unittest, as a program of its own.
///
/// # Errors
/// Fails without Go, or when the compiler does.
pub async fn helm_unittest(cache: Cache) -> Result<PathBuf> {
    let package = "github.com/helm-unittest/helm-unittest/cmd/helm-unittest";
    GoBuilder::new(cache).program("helm-unittest", MODULE, package).await
}

/// kubeconform.
///
/// # Errors
/// Fails without Go, or when the compiler does.
pub async fn kubeconform(cache: Cache) -> Result<PathBuf> {
    GoBuilder::new(cache).program("kubeconform", MODULE, "github.com/yannh/kubeconform/cmd/kubeconform").await
}
