//! The organization's budget: what it may spend, what it has spent.

use axum::{Extension, extract::State as Ask};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{change, configuration, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet},
    domain::{
        money::NanoUsd,
        rows::{Table, Write},
    },
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
    tenants::Budget,
};

/// The limit and what is spent and held in the open window.
pub(in crate::http) async fn get(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let (limit, window) = snapshot.budget();
    let spending = state.records.spending(who.principal.org(), window).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "spending cannot be read");
        ApiError::unavailable("database_unavailable", "the database does not answer")
    })?;
    Ok(Json(json!({
        "limit_usd": limit.map(NanoUsd::dollars), "limit_nano": limit, "window": window,
        "settled_nano": spending.settled, "held_nano": spending.held, "open": spending.open,
        "settled_usd": spending.settled.dollars(), "held_usd": spending.held.dollars(),
    })))
}

/// A limit; null takes it away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewBudget {
    // Named, so that it has to be there: only an explicit null takes the limit away.
    #[serde(deserialize_with = "Option::deserialize")]
    limit_usd: Option<f64>,
}

/// Sets or takes away the limit. The window stays open.
pub(in crate::http) async fn put(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<NewBudget>,
) -> Result<Json<Value>, ApiError> {
    let limit = match asked.limit_usd {
        None => None,
        Some(dollars) => Some(NanoUsd::from_dollars(dollars).ok_or_else(|| {
            ApiError::invalid("`limit_usd` must be dollars of at least 0").with_param(Some("limit_usd".to_owned()))
        })?),
    };
    let made = change(&state, &who, move |config| {
        let window = config.budget.as_ref().map_or(0, |budget| budget.window);
        // Without a limit the window's number has to be kept, or a later limit would reopen an old one.
        let budget = Budget { limit_nano: limit, window };
        Ok(ChangeSet {
            kind: "budget.set",
            content: json!({ "limit_nano": limit, "window": window }),
            writes: vec![Write::put(Table::Budget, "org", &budget)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "limit_usd": asked.limit_usd }), &made)))
}

/// Opens a new window: nothing of it is spent. Calls under way are settled in the window that they were admitted in.
pub(in crate::http) async fn reset(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let made = change(&state, &who, move |config| {
        let budget = config.budget.as_ref().ok_or_else(|| ChangeRefused::NotFound("a budget".to_owned()))?;
        let budget = Budget { window: budget.window + 1, ..budget.clone() };
        Ok(ChangeSet {
            kind: "budget.reset",
            content: json!({ "window": budget.window }),
            writes: vec![Write::put(Table::Budget, "org", &budget)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "reset": true }), &made)))
}
