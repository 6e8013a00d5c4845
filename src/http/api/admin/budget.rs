//! The organization's budget: what it may spend, what it has spent.

use axum::{Extension, extract::State as Ask};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{change, configuration, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet, Spent},
    domain::{
        money::NanoUsd,
        rows::{Table, Write},
    },
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
    tenants::Budget,
};

/// The limits, and what is spent and held in the open windows.
pub(in crate::http) async fn get(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let budget = snapshot.budget();
    let number = budget.window;
    let total = spent(&state, &who, &format!("total:{number}")).await?;
    let day = spent(&state, &who, &format!("day:{number}:{{day}}")).await?;
    let month = spent(&state, &who, &format!("month:{number}:{{month}}")).await?;
    let window = |limit: Option<NanoUsd>, spent: &Spent| {
        limit.map(|limit| {
            json!({
                "limit_usd": limit.dollars(), "limit_nano": limit,
                "settled_nano": spent.settled, "held_nano": spent.held,
            })
        })
    };
    Ok(Json(json!({
        "limit_usd": budget.limit_nano.map(NanoUsd::dollars), "limit_nano": budget.limit_nano, "window": number,
        "settled_nano": total.settled, "held_nano": total.held, "open": total.open,
        "settled_usd": total.settled.dollars(), "held_usd": total.held.dollars(),
        "call_usd": budget.call_nano.map(NanoUsd::dollars),
        "session_usd": budget.session_nano.map(NanoUsd::dollars),
        "day_usd": budget.day_nano.map(NanoUsd::dollars),
        "month_usd": budget.month_nano.map(NanoUsd::dollars),
        "day": window(budget.day_nano, &day), "month": window(budget.month_nano, &month),
    })))
}

async fn spent(state: &State, who: &Identified, window: &str) -> Result<Spent, ApiError> {
    state.records.spending(who.principal.org(), window).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "spending cannot be read");
        ApiError::database()
    })
}

/// Limits in dollars. What is not named stays as it is; null takes a limit away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, clippy::option_option, reason = "the names of the wire; a null is not an absence")]
pub(in crate::http) struct NewBudget {
    #[serde(default, deserialize_with = "named")]
    limit_usd: Option<Option<f64>>,
    #[serde(default, deserialize_with = "named")]
    call_usd: Option<Option<f64>>,
    #[serde(default, deserialize_with = "named")]
    session_usd: Option<Option<f64>>,
    #[serde(default, deserialize_with = "named")]
    day_usd: Option<Option<f64>>,
    #[serde(default, deserialize_with = "named")]
    month_usd: Option<Option<f64>>,
}

/// A field that is there, be it null.
#[expect(clippy::option_option, reason = "a null is not an absence")]
fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Sets or takes away limits. The windows stay open.
pub(in crate::http) async fn put(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<NewBudget>,
) -> Result<Json<Value>, ApiError> {
    let limits = [
        ("limit_usd", asked.limit_usd),
        ("call_usd", asked.call_usd),
        ("session_usd", asked.session_usd),
        ("day_usd", asked.day_usd),
        ("month_usd", asked.month_usd),
    ];
    if limits.iter().all(|(_, limit)| limit.is_none()) {
        let words = "one of `limit_usd`, `call_usd`, `session_usd`, `day_usd` and `month_usd` must be there";
        return Err(ApiError::invalid(words).with_param(Some("limit_usd".to_owned())));
    }
    let mut set = Vec::new();
    let mut answer = serde_json::Map::new();
    for (field, limit) in limits {
        let Some(dollars) = limit else { continue };
        let wrong =
            || ApiError::invalid(format!("`{field}` must be dollars of at least 0")).with_param(Some(field.to_owned()));
        let nano = dollars.map(|dollars| NanoUsd::from_dollars(dollars).ok_or_else(wrong)).transpose()?;
        set.push((field, nano));
        answer.insert(field.to_owned(), json!(dollars));
    }
    let made = change(&state, &who, move |config| {
        // Without a limit the window's number has to be kept, or a later limit would reopen an old one.
        let mut budget = config.budget.clone().unwrap_or_default();
        for (field, nano) in set {
            match field {
                "limit_usd" => budget.limit_nano = nano,
                "call_usd" => budget.call_nano = nano,
                "session_usd" => budget.session_nano = nano,
                "day_usd" => budget.day_nano = nano,
                _ => budget.month_nano = nano,
            }
        }
        set_to("budget.set", &budget)
    })
    .await?;
    Ok(Json(with_receipt(Value::Object(answer), &made)))
}

/// Opens new windows of every kind: nothing of them is spent. Calls under way are settled in the windows that they were
/// admitted in.
pub(in crate::http) async fn reset(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let made = change(&state, &who, move |config| {
        // Also where the organization itself has no limit: the windows of its agents carry the same number.
        let budget = config.budget.clone().unwrap_or_default();
        set_to("budget.reset", &Budget { window: budget.window + 1, ..budget })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "reset": true }), &made)))
}

fn set_to(kind: &'static str, budget: &Budget) -> Result<ChangeSet, ChangeRefused> {
    let content = serde_json::to_value(budget).map_err(|_| ChangeRefused::Internal)?;
    Ok(ChangeSet { kind, content, writes: vec![Write::put(Table::Budget, "org", budget)?] })
}
