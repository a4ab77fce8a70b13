//! Whether store and spool are two folders.

use crate::config::Config;

use super::store::objects::Objects;

/// The spool is emptied when a recording is finished, and every folder in it is taken for a recording.
///
/// # Errors
/// Text that names both options.
pub fn apart(config: &Config) -> Result<(), String> {
    let Some(store) = Objects::folder(&config.store) else { return Ok(()) };
    let whole = |path: &std::path::Path| std::fs::canonicalize(path).ok();
    let (Some(store), Some(spool)) = (whole(&store), whole(&config.spool)) else { return Ok(()) };
    if store.starts_with(&spool) || spool.starts_with(&store) {
        let (store, spool) = (&config.store, config.spool.display());
        return Err(format!("--store {store} and --spool {spool}: one lies within the other; give two folders apart"));
    }
    Ok(())
}
