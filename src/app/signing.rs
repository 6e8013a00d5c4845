//! The keys that sign the record: made at the first start, bound to the data folder from then on.
//!
//! Owns the agreement of the database's keys with those that are kept in `anchors/jwks.json`. That file is written once
//! and never replaced, so that a key which somebody put into the database signs nothing. Fails the start where the two
//! do not agree.

use std::sync::Arc;

use super::wiring::AppError;
use crate::{
    admission::{Credentials, system_org},
    config::Config,
    crypto::{CryptoError, Jwks, SigningKey, VerifyingKey},
    domain::{clock::Clock, ids::CredentialId},
    storage::{Anchors, Sql, sql::SigningKeyRecord},
};

/// The record's signing keys.
pub(super) struct Keys {
    pub(super) writer: SigningKey,
    pub(super) checkpoints: SigningKey,
    pub(super) jwks: Jwks,
}

/// Reads the audit key, or makes and anchors it at the first start.
pub(super) async fn keys(
    config: &Config,
    sql: &Sql,
    credentials: &Credentials,
    clock: &Arc<dyn Clock>,
) -> Result<Keys, AppError> {
    let anchors = Anchors::below(&config.data.dir);
    let kept = anchors.jwks().map_err(AppError::Folder)?;
    let kept = kept.map(|text| Jwks::parse(&text)).transpose()?;
    let mut stored = sql.signing_keys().await?;
    if stored.is_empty() {
        if let Some(kept) = &kept {
            return Err(AppError::LostKeys(names(kept.keys())));
        }
        stored.push(make(config, sql, credentials, clock).await?);
    }
    let jwks = publics(&stored)?;
    match &kept {
        Some(kept) => bound(&jwks, kept)?,
        // The first start, or one that was killed before this line.
        None => anchors.put_jwks(&jwks.to_json().to_string()).map_err(AppError::Folder)?,
    }
    let active = stored.iter().find(|record| record.state == "active").ok_or(CryptoError::Key)?;
    let id = credential(&active.kid)?;
    let opened = credentials.open_bytes(&system_org(), &id, "audit_key", &active.data_key_id, &active.sealed).await?;
    let seed: [u8; 32] = opened.expose().try_into().map_err(|_| CryptoError::Key)?;
    let seed = zeroize::Zeroizing::new(seed);
    Ok(Keys { writer: SigningKey::from_seed(&seed)?, checkpoints: SigningKey::from_seed(&seed)?, jwks })
}

async fn make(
    config: &Config,
    sql: &Sql,
    credentials: &Credentials,
    clock: &Arc<dyn Clock>,
) -> Result<SigningKeyRecord, AppError> {
    let seed = SigningKey::generate()?;
    let public = SigningKey::from_seed(&seed)?.public().clone();
    let id = credential(public.kid())?;
    let (data_key_id, sealed) = credentials.seal_bytes(&system_org(), &id, "audit_key", seed.as_slice()).await?;
    let record = SigningKeyRecord {
        kid: public.kid().to_owned(),
        purpose: "audit".to_owned(),
        state: "active".to_owned(),
        public_key: public.as_bytes().to_vec(),
        data_key_id,
        sealed,
        created_at: clock.now(),
    };
    sql.insert_signing_key(&record).await?;
    tracing::info!(kid = record.kid, deployment = config.audit.deployment, "an audit key was made");
    Ok(record)
}

/// The public halves; each row's name must be its key's.
fn publics(stored: &[SigningKeyRecord]) -> Result<Jwks, AppError> {
    let mut jwks = Jwks::default();
    for record in stored {
        let key = VerifyingKey::from_slice(&record.public_key)?;
        if key.kid() != record.kid {
            return Err(AppError::MisnamedKey(record.kid.clone()));
        }
        jwks.insert(key);
    }
    Ok(jwks)
}

/// Whether every key of the database is one that is kept.
fn bound(jwks: &Jwks, kept: &Jwks) -> Result<(), AppError> {
    let foreign = jwks.keys().iter().filter(|key| !kept.keys().contains(key));
    let foreign = names(foreign);
    if foreign.is_empty() { Ok(()) } else { Err(AppError::ForeignKeys(foreign)) }
}

fn names<'k>(keys: impl IntoIterator<Item = &'k VerifyingKey>) -> String {
    keys.into_iter().map(VerifyingKey::kid).collect::<Vec<_>>().join(", ")
}

fn credential(kid: &str) -> Result<CredentialId, AppError> {
    CredentialId::parse(&format!("audit-{kid}")).map_err(|_| AppError::Crypto(CryptoError::Key))
}
