//! Who may connect: ingest tokens, compared in constant time.

use subtle::ConstantTimeEq;

/// The tokens that bots may come with.
#[derive(Clone, Default)]
pub struct IngestTokens(Vec<(Option<String>, String)>);

/// What a bot may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The tenant that its token belongs to.
    pub tenant: Option<String>,
}

impl IngestTokens {
    /// Entries `token` or `tenant:token`.
    pub fn new(entries: &[String]) -> IngestTokens {
        let split = |entry: &String| match entry.split_once(':') {
            Some((tenant, token)) => (Some(tenant.to_owned()), token.to_owned()),
            None => (None, entry.clone()),
        };
        IngestTokens(entries.iter().map(split).collect())
    }

    /// Whether there is no token, and everybody may connect.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tenants there are; to be of none is to be one of them.
    pub fn tenants(&self) -> usize {
        self.0.iter().map(|(tenant, _)| tenant).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Checks the token of a URL.
    pub fn admit(&self, token: Option<&str>) -> Option<Admitted> {
        if self.is_empty() {
            return Some(Admitted { tenant: None });
        }
        let token = token?;
        // Every entry is compared, so that the time taken tells nothing.
        let mut admitted = None;
        for (tenant, known) in &self.0 {
            if bool::from(known.as_bytes().ct_eq(token.as_bytes())) {
                admitted = Some(Admitted { tenant: tenant.clone() });
            }
        }
        admitted
    }
}

impl std::fmt::Debug for IngestTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ingest tokens", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_tokens_opens_and_nothing_else_does() {
        let tokens = IngestTokens::new(&["alpha".into(), "acme:beta".into()]);
        let tenant = |tenant: Option<&str>| Some(Admitted { tenant: tenant.map(str::to_owned) });
        assert_eq!(tokens.admit(Some("alpha")), tenant(None));
        assert_eq!(tokens.admit(Some("beta")), tenant(Some("acme")));
        for bad in [None, Some(""), Some("alph"), Some("alphaa"), Some("acme:beta")] {
            assert_eq!(tokens.admit(bad), None, "{bad:?}");
        }
        assert_eq!(IngestTokens::default().admit(None), tenant(None));
        assert_eq!(format!("{tokens:?}"), "2 ingest tokens");
    }
}
