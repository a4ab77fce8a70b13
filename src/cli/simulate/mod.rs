//! `tilecast simulate`: bots that speak Recall.ai's protocol, for load tests and for trying the server without a meeting.

pub mod picture;
pub mod plan;
pub mod template;
