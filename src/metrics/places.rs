//! The places on a picture's way at which time is measured: stages that work, queues that wait.

/// Where time is spent on a picture's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The socket's part: JSON, routing.
    Parse,
    /// Base64, PNG, colour conversion.
    Decode,
    /// One access unit.
    Encode,
    /// A part written to the spool, with its journal line.
    Append,
    /// A batch of closed segments made durable.
    Sync,
    /// One object put into the store.
    Put,
    /// One MP4 assembled.
    Assemble,
}

impl Stage {
    pub(super) const ALL: [Stage; 7] =
        [Stage::Parse, Stage::Decode, Stage::Encode, Stage::Append, Stage::Sync, Stage::Put, Stage::Assemble];

    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::Parse => "parse",
            Stage::Decode => "decode",
            Stage::Encode => "encode",
            Stage::Append => "append",
            Stage::Sync => "sync",
            Stage::Put => "put",
            Stage::Assemble => "assemble",
        }
    }
}

/// Where a capture waits on its way. The depths of these and other queues are gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// A capture at its socket and in its lane, for an ingest worker.
    Captures,
    /// A lane's pictures, for an encoder worker.
    Pictures,
}

impl Queue {
    pub(super) const ALL: [Queue; 2] = [Queue::Captures, Queue::Pictures];

    pub(super) fn name(self) -> &'static str {
        match self {
            Queue::Captures => "captures",
            Queue::Pictures => "pictures",
        }
    }
}
