//! Waiting, with an end to it.
//!
//! Owns the one time limit of the suite and the one loop that asks again. Never sleeps for a fixed time in the hope that
//! something has happened meanwhile. Fails by panicking with the name of what did not happen.

use std::{future::Future, time::Duration};

/// Longer than anything that works takes on a busy machine; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, and says what was awaited when it does not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_elapsed| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Asks until there is an answer. For what can only be asked (a file, another process), never for what can be awaited.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            if let Some(value) = ask().await {
                return value;
            }
        }
    })
    .await
}
