//! Tables and properties of the timeline.
