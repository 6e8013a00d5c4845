//! Waiting for the database at the start.
//!
//! Owns what is waited for: a database that is out of reach, and nothing else. Tries once at once; from then on callers
//! are told that the gateway waits, and why. Every other error ends the start.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::AppError;
use crate::{
    admission::{ChangeError, CredentialError},
    http::{Door, Readiness},
};

/// After the first attempt; each further pause is twice the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: so much later than its database a gateway is ready.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Attempts until one has come to an end that waiting does not change.
pub(super) async fn while_out_of_reach<T>(
    attempt: impl AsyncFn() -> Result<T, AppError>,
    readiness: &Arc<Readiness>,
    door: &Door,
) -> Result<T, AppError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attempt().await {
            Err(error) if heals_by_itself(&error) => error,
            ended => return ended,
        };
        let pause_ms = pause.as_millis();
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            pause_ms,
            "the database is out of reach: waiting for it"
        );
        readiness.waiting.store(true, Ordering::Release);
        door.refuse();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn heals_by_itself(error: &AppError) -> bool {
    let (AppError::Storage(cause)
    | AppError::Credential(CredentialError::Storage(cause))
    | AppError::Bootstrap(ChangeError::Storage(cause))) = error
    else {
        // What was made is found to be there, what was not is made again.
        return matches!(error, AppError::Bootstrap(ChangeError::Unknown(_) | ChangeError::Withdrawn));
    };
    cause.heals_by_itself()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{
        domain::{
            clock::{Clock as _, ManualClock},
            ids::BootId,
        },
        http::{NameSource, Starting, starting},
        storage::StorageError,
    };

    fn door(readiness: &Arc<Readiness>) -> Door {
        let clock = Arc::new(ManualClock::at(0));
        let names = NameSource::new(&BootId::parse("boot_a").unwrap());
        let readiness = Arc::clone(readiness);
        Door::new(starting(Starting { began: clock.running(), clock, names, readiness, storage: "sqlite" }))
    }

    fn out_of_reach() -> AppError {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        AppError::Storage(StorageError::Unavailable(refused.into()))
    }

    #[tokio::test]
    async fn a_database_that_is_out_of_reach_is_tried_until_it_answers_and_callers_are_told() {
        let readiness = Arc::<Readiness>::default();
        let tried = AtomicUsize::new(0);
        let attempt = async || {
            assert_eq!(readiness.waiting.load(Ordering::Acquire), tried.load(Ordering::Relaxed) > 0);
            match tried.fetch_add(1, Ordering::Relaxed) {
                0 => Err(out_of_reach()),
                1 => Err(AppError::Credential(CredentialError::Storage(StorageError::Unavailable(
                    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into(),
                )))),
                _ => Ok("built"),
            }
        };
        let built = while_out_of_reach(attempt, &readiness, &door(&readiness)).await;
        assert_eq!((built.unwrap(), tried.into_inner()), ("built", 3));
    }

    #[tokio::test]
    async fn what_waiting_does_not_change_ends_the_start_at_once() {
        let readiness = Arc::<Readiness>::default();
        let attempt = async || Err::<(), _>(AppError::Storage(StorageError::Schema));
        let ended = while_out_of_reach(attempt, &readiness, &door(&readiness)).await;
        assert!(matches!(ended, Err(AppError::Storage(StorageError::Schema))));
        assert!(!readiness.waiting.load(Ordering::Acquire));
    }
}
