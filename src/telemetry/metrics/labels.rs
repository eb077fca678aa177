//! A metric for each value of one label, all of them there from the start: an alert can then tell "none" from "unknown".

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A label with its value.
pub(in crate::telemetry) type One = [(&'static str, &'static str); 1];

/// A metric `M` for each value of a label.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct By<M> {
    label: &'static str,
    each: Vec<(&'static str, M)>,
}

impl<M> By<M> {
    /// One for each of these values, of which there is at least one.
    pub(super) fn label(
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
        make: impl Fn() -> M,
    ) -> Self {
        Self { label, each: values.into_iter().map(|value| (value, make())).collect() }
    }

    /// That of this value; where there is none, the last.
    pub(in crate::telemetry) fn of(&self, value: &str) -> &M {
        let found = self.each.iter().position(|(known, _)| *known == value);
        debug_assert!(found.is_some(), "{}: {value} is not among its values", self.label);
        &self.each[found.unwrap_or(self.each.len() - 1)].1
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for By<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (value, metric) in &self.each {
            let label: One = [(self.label, *value)];
            metric.encode(encoder.encode_family(&label)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
