//! A participant, and what of it is kept.

use serde::{Deserialize, Serialize};

use crate::config::ParticipantField;

/// A participant as Recall describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Integer or string on the wire; text here.
    pub id: String,
    /// Display name.
    pub name: Option<String>,
    /// Address, where Recall knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether this is a host of the meeting.
    pub is_host: Option<bool>,
    /// `desktop`, `mobile_app`, ...
    pub platform: Option<String>,
}

impl Participant {
    /// Forgets what is not to be stored.
    pub fn keep(&mut self, fields: &[ParticipantField]) {
        let has = |field| fields.contains(&field);
        self.name = self.name.take().filter(|_| has(ParticipantField::Name));
        self.email = self.email.take().filter(|_| has(ParticipantField::Email));
        self.is_host = self.is_host.filter(|_| has(ParticipantField::IsHost));
        self.platform = self.platform.take().filter(|_| has(ParticipantField::Platform));
    }
}
