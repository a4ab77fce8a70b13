//! `POST /hooks/recall`: what Recall says of a bot. A bot that is gone does not come back, so its recordings need not wait;
//! while it is paused, what is missing has that reason.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::auth::HookRefusal;
use super::body;
use super::error::ApiError;
use crate::pipeline::recording::Recording;

const BODY_BYTES_MAX: usize = 256 * 1024;
/// What ends a bot's part in a meeting.
const ENDS: [&str; 3] = ["bot.call_ended", "bot.done", "bot.fatal"];
/// It is in the call and records nothing: before the recording's start, and while that is paused.
const PAUSED: &str = "bot.in_call_not_recording";

/// What matters of it.
#[derive(Deserialize)]
struct Status {
    event: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    bot: Option<BotIn>,
    /// Older messages.
    bot_id: Option<String>,
}

#[derive(Deserialize)]
struct BotIn {
    id: String,
}

/// Takes a status: 200 whatever the bot, also one that is not ours or is finished already, so that it is not sent again.
pub async fn recall(State(app): State<App>, headers: HeaderMap, request: Body) -> Result<Json<Value>, ApiError> {
    let text = body::read(request, BODY_BYTES_MAX).await?;
    let tenant = app.doors.hook(&headers, &text, app.pipeline.clock.unix()).map_err(|refusal| {
        app.pipeline.metrics.request_refused("hook");
        match refusal {
            HookRefusal::Closed => ApiError::new(StatusCode::FORBIDDEN, "set TILECAST_RECALL_SECRET to take webhooks"),
            HookRefusal::Unsigned => {
                ApiError::new(StatusCode::UNAUTHORIZED, "the signature is missing, wrong or too old")
            }
        }
    })?;
    let status: Status = serde_json::from_slice(&text)
        .map_err(|error| ApiError::bad_request(format!("not a status of a bot: {error}")))?;
    let tell: Option<fn(&Recording)> = match &*status.event {
        PAUSED => Some(Recording::bot_is_paused),
        event => ENDS.contains(&event).then_some(Recording::bot_is_gone),
    };
    let bot = status.data.bot.map(|bot| bot.id).or(status.data.bot_id);
    let Some((tell, bot)) = tell.zip(bot) else { return Ok(Json(json!({ "recordings": 0 }))) };
    // A secret of all tenants speaks for any of them.
    let theirs = |of: &Option<String>| tenant.is_none() || *of == tenant;
    let open = app.pipeline.registry.all();
    let mine = open.iter().filter(|open| open.bot_id().as_deref() == Some(&*bot) && theirs(&open.name().tenant));
    let recordings = mine.inspect(|recording| tell(recording)).count();
    tracing::info!(event = status.event, recordings, "a status of Recall's bot");
    Ok(Json(json!({ "recordings": recordings })))
}
