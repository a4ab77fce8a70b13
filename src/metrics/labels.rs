//! What metrics are told apart by: few values, known beforehand.

use prometheus_client::encoding::EncodeLabelSet;

/// `kind="webcam"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabel {
    pub(super) kind: &'static str,
}

/// `kind="webcam",reason="late"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LossLabel {
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
}

/// One label of any name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    pub(super) reason: &'static str,
}

/// `event="transcript.data"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EventLabel {
    pub(super) event: String,
}

/// `stage="decode"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StageLabel {
    pub(super) stage: &'static str,
}

/// `queue="captures"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QueueLabel {
    pub(super) queue: &'static str,
}

/// `level="cheaper"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LevelLabel {
    pub(super) level: &'static str,
}

/// `state="live"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabel {
    pub(super) state: &'static str,
}

/// `operation="put"`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OperationLabel {
    pub(super) operation: &'static str,
}
