//! Decides how an answer reads for programs: as JSON or as YAML.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arguments::Format;

/// A value as JSON or YAML.
pub(crate) fn formatted(format: Format, value: &impl Serialize) -> Result<String> {
    match format {
        Format::Yaml => serde_yaml::to_string(value).context("write the answer as YAML"),
        Format::Json | Format::Table => {
            serde_json::to_string_pretty(value).map(|text| text + "\n").context("write the answer as JSON")
        }
    }
}
