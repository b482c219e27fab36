//! What was measured together and is replaced together, so that nobody sees one half of a measurement.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::catalog::{Kind, Metric};

/// A gauge or a counter with all its series. What is not measured any more has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    metric: Metric,
    series: Vec<(Vec<String>, f64)>,
}

impl Metric {
    /// What was measured: one value, which has no labels.
    pub fn reads(self, value: f64) -> Reading {
        self.reads_each([([], value)])
    }

    /// What was measured: each value with its labels, in the catalog's order.
    pub fn reads_each<const LABELS: usize>(self, series: impl IntoIterator<Item = ([String; LABELS], f64)>) -> Reading {
        debug_assert_eq!(self.labels.len(), LABELS, "{}", self.name);
        Reading { metric: self, series: series.into_iter().map(|(labels, value)| (labels.into(), value)).collect() }
    }
}

/// The last measurement, and how long the passes took.
#[derive(Clone, Debug)]
pub struct Readings {
    last: Arc<Mutex<Vec<Reading>>>,
    durations: Histogram,
}

/// The times of a pass that are told apart, in seconds: one with nothing to do is quick, one that moves memory is not.
const DURATIONS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

impl Readings {
    /// None yet; `durations` names the times of passes.
    pub fn of(durations: Metric, registry: &mut Registry) -> Self {
        let readings = Self { last: Arc::default(), durations: Histogram::new(DURATIONS) };
        registry.register(durations.name, durations.help, readings.durations.clone());
        registry.register_collector(Box::new(readings.clone()));
        readings
    }

    /// Replaces the last measurement.
    pub fn replace(&self, readings: Vec<Reading>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = readings;
    }

    /// A pass took this long.
    pub fn took(&self, time: Duration) {
        self.durations.observe(time.as_secs_f64());
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let readings = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for Reading { metric, series } in readings.iter().filter(|reading| !reading.series.is_empty()) {
            let (name, type_) = match metric.kind {
                Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge | Kind::Histogram => (metric.name, MetricType::Gauge),
            };
            let mut described = encoder.encode_descriptor(name, metric.help, None, type_)?;
            for (values, value) in series {
                if values.is_empty() {
                    write(*value, metric.kind, described)?;
                    break;
                }
                let labels: Vec<_> = metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                write(*value, metric.kind, described.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn write(value: f64, kind: Kind, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge | Kind::Histogram => ConstGauge::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::catalog::{AGENT_HEALS, AGENT_PASS_SECONDS, SLICE_CPUS};

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("a string takes everything");
        text
    }

    #[test]
    fn a_measurement_replaces_the_whole_one_before() {
        let mut registry = Registry::default();
        let readings = Readings::of(AGENT_PASS_SECONDS, &mut registry);
        let cpus = |slice: &str, count| SLICE_CPUS.reads_each([(["shop".to_owned(), slice.to_owned()], count)]);
        readings.replace(vec![cpus("a", 4.0)]);
        readings.replace(vec![cpus("b", 2.0), AGENT_HEALS.reads(3.0)]);
        readings.took(Duration::from_millis(20));
        let told = text(&registry);
        let lines: Vec<_> = told.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).collect();
        let expected = [
            "lamina_agent_pass_duration_seconds_sum 0.02",
            "lamina_agent_pass_duration_seconds_count 1",
            "lamina_slice_cpus{topology=\"shop\",slice=\"b\"} 2.0",
            "lamina_agent_heals_total 3.0",
        ];
        assert_eq!(lines, expected, "{told}");
        assert!(told.contains("lamina_agent_pass_duration_seconds_bucket{le=\"0.025\"} 1"), "{told}");
    }
}
