//! `tappass audit export` and `tappass audit verify`: the record, from a data folder or from files.
//!
//! Owns reading a chain in one moment, beside a running gateway or without one. Never writes to the database. Verifying
//! from files needs nothing else: the export, the public keys, and a checkpoint that was kept outside.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    audit::{
        BatchRow, EntryBody, Evidence, Head, Report, StoredEntry, Verifier,
        checkpoint::origin,
        export::{ExportError, ExportHeader, Writer},
    },
    crypto::{CryptoError, Jwks, VerifyingKey},
    domain::{
        ids::{BootId, OrgId},
        rows::ConfigRows,
        stamp::ConfigStamp,
    },
    storage::{
        Anchors, Sql, StorageError,
        sql::{self, ReadTx},
    },
};

/// Rows that are read at once.
const PAGE: u32 = 2_000;

/// Why a record cannot be exported or verified.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The database.
    #[error("the database cannot be read")]
    Storage(#[from] StorageError),
    /// A file.
    #[error("`{path}` cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An export.
    #[error("the export cannot be read or written: {0}")]
    Export(#[from] ExportError),
    /// Keys.
    #[error("the public keys cannot be read")]
    Keys(#[from] CryptoError),
    /// Which chain?
    #[error("{0}")]
    Which(String),
}

/// One chain's evidence, but for its entries.
struct Chain {
    evidence: Evidence,
    rows: ConfigRows,
}

/// Writes one chain to a file; answers which and how many entries.
pub(super) async fn export(
    sql: &Sql,
    deployment: &str,
    org: Option<&str>,
    out: &Path,
) -> Result<(OrgId, u64), RecordError> {
    let org = choose(sql, org).await?;
    let mut tx = sql.begin_read().await?;
    let Chain { evidence, .. } = chain(&mut tx, &org, deployment, Vec::new()).await?;
    let fail = |source| RecordError::File { path: out.to_owned(), source };
    let beside = out.with_extension("part");
    let file = File::create(&beside).map_err(fail)?;
    let header = ExportHeader::new(org.clone(), evidence.origin, evidence.head, evidence.config);
    let mut writer = Writer::open(BufWriter::new(file), &header)?;
    for boot in &evidence.closed {
        writer.closed(boot)?;
    }
    for batch in &evidence.batches {
        writer.batch(batch)?;
    }
    for note in &evidence.checkpoints {
        writer.checkpoint(note)?;
    }
    let mut after = 0;
    loop {
        let page = tx.entries_after(&org, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for row in page {
            writer.entry(&stored(row))?;
        }
    }
    writer.finish()?.flush().map_err(fail)?;
    std::fs::rename(&beside, out).map_err(fail)?;
    Ok((org, after))
}

/// Verifies every chain of a database, or one, against the anchors of a data folder. Configuration rows are compared with
/// the chain as well.
pub(super) async fn verify_database(
    sql: &Sql,
    data: &Path,
    deployment: &str,
    org: Option<&str>,
) -> Result<Vec<(Report, Option<String>)>, RecordError> {
    let anchors = Anchors::below(data);
    let folder = |source| RecordError::File { path: data.join("anchors"), source };
    let keys = match anchors.jwks().map_err(folder)? {
        Some(kept) => Jwks::parse(&kept)?,
        None => stored_keys(sql).await?,
    };
    let mut chains: Vec<OrgId> = match org {
        Some(_) => vec![choose(sql, org).await?],
        None => sql.chains().await?,
    };
    // A chain whose head is gone still has anchors.
    if org.is_none() {
        for anchored in anchors.organizations().map_err(folder)? {
            if !chains.contains(&anchored) {
                chains.push(anchored);
            }
        }
    }
    let mut reports = Vec::new();
    for org in chains {
        let mut tx = sql.begin_read().await?;
        let notes = anchors.notes(&org).map_err(folder)?;
        let Chain { evidence, rows } = chain(&mut tx, &org, deployment, notes).await?;
        let config = evidence.config;
        let mut verifier = Verifier::new(evidence, &keys);
        let mut strange = None;
        let mut after = 0;
        loop {
            let page = tx.entries_after(&org, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for row in page {
                if strange.is_none() {
                    strange = column(&row);
                }
                verifier.entry(&stored(row));
            }
        }
        reports.push((verifier.finish(), strange.or_else(|| edited(config, &rows))));
    }
    Ok(reports)
}

/// Verifies an export against keys and checkpoints that were kept outside.
pub(super) fn verify_export(export: &Path, jwks: &Path, checkpoints: &[PathBuf]) -> Result<Report, RecordError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| RecordError::File { path: path.to_owned(), source })
    };
    let keys = Jwks::parse(&read(jwks)?)?;
    let anchors = checkpoints.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let file = File::open(export).map_err(|source| RecordError::File { path: export.to_owned(), source })?;
    Ok(crate::audit::export::verify(BufReader::new(file), &keys, anchors)?)
}

/// Whether a row's columns say what its body says; a sentence if not. An export has no such columns.
fn column(row: &sql::EntryRow) -> Option<String> {
    let body = EntryBody::parse(&row.body).ok()?;
    let same = body.kind == row.kind && body.id.boot.as_str() == row.boot && body.id.counter == row.counter;
    (!same).then(|| format!("entry {}: a column of its row says something else than its body", row.seq))
}

/// Whether the configuration rows hash to the digest on the head; a sentence if not.
fn edited(config: Option<ConfigStamp>, rows: &ConfigRows) -> Option<String> {
    let stamp = config.filter(|stamp| stamp.version > 0)?;
    (rows.digest() != stamp.digest).then(|| {
        let version = stamp.version;
        format!("the configuration rows do not match version {version}, made by the change with link {}: a row was edited outside of tappass", stamp.tag)
    })
}

async fn chain(tx: &mut ReadTx, org: &OrgId, deployment: &str, anchors: Vec<String>) -> Result<Chain, RecordError> {
    let head = tx.head(org).await?;
    let rows = tx.config_rows(org).await?;
    let mut batches: Vec<BatchRow> = Vec::new();
    let mut after = (String::new(), 0);
    loop {
        let page = tx.batches_after(org, (&after.0, after.1), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.boot.clone(), last.number);
        for row in page {
            batches.push(batch(org, row)?);
        }
    }
    let closed = tx.closed_boots().await?;
    let closed: HashSet<BootId> = closed.iter().filter_map(|id| BootId::parse(id).ok()).collect();
    let evidence = Evidence {
        org: org.clone(),
        origin: origin(deployment, org),
        head: head.as_ref().map(|head| Head { seq: head.seq, link: head.link }),
        config: head.as_ref().map(|head| head.stamp),
        batches,
        checkpoints: tx.notes(org).await?,
        anchors,
        closed,
    };
    Ok(Chain { evidence, rows })
}

fn batch(org: &OrgId, row: sql::BatchRow) -> Result<BatchRow, RecordError> {
    let boot = BootId::parse(&row.boot).map_err(|_| StorageError::Inconsistent { table: "audit_batch" })?;
    let sql::BatchRow { number, message, kid, signature, unwritten, .. } = row;
    Ok(BatchRow { org: org.clone(), boot, number, message, kid, signature, unwritten })
}

fn stored(row: sql::EntryRow) -> StoredEntry {
    StoredEntry { seq: row.seq, link: row.link, digest: row.digest, body: row.body }
}

async fn stored_keys(sql: &Sql) -> Result<Jwks, RecordError> {
    let stored = sql.signing_keys().await?;
    let keys = stored.iter().map(|record| VerifyingKey::from_slice(&record.public_key));
    Ok(Jwks::new(keys.collect::<Result<Vec<_>, _>>()?))
}

/// The chain that was named, or the only organization's.
async fn choose(sql: &Sql, org: Option<&str>) -> Result<OrgId, RecordError> {
    let chains = sql.chains().await?;
    if let Some(named) = org {
        let found = chains.iter().find(|chain| chain.as_str() == named);
        return found.cloned().ok_or_else(|| RecordError::Which(format!("there is no chain `{named}`")));
    }
    let own: Vec<&OrgId> = chains.iter().filter(|chain| chain.as_str() != crate::admission::SYSTEM).collect();
    match own.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(RecordError::Which("there is no organization yet".to_owned())),
        several => {
            let names: Vec<&str> = several.iter().map(|org| org.as_str()).collect();
            Err(RecordError::Which(format!(
                "there are several organizations; name one with --org: {}",
                names.join(", ")
            )))
        }
    }
}
