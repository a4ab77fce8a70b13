//! `POST /hooks/recall`: what Recall says of a bot. A bot that is gone does not come back, so its recordings need not wait;
//! while it is paused, what is missing has that reason.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::auth::HookRefusal;
use super::body;
use super::error::{ApiError, ErrorBody};
use crate::pipeline::recording::Recording;

const BODY_BYTES_MAX: usize = 256 * 1024;
/// What ends a bot's part in a meeting.
const ENDS: [&str; 3] = ["bot.call_ended", "bot.done", "bot.fatal"];
/// It is in the call and records nothing: before the recording's start, and while that is paused.
const PAUSED: &str = "bot.in_call_not_recording";

/// What matters of it.
#[derive(Deserialize, ToSchema)]
pub struct Status {
    /// `bot.done`, ...
    event: String,
    data: Data,
}

/// What it is about.
#[derive(Deserialize, ToSchema)]
pub struct Data {
    /// The bot.
    bot: Option<BotIn>,
    /// Older messages.
    bot_id: Option<String>,
}

/// A bot.
#[derive(Deserialize, ToSchema)]
pub struct BotIn {
    /// Its id.
    id: String,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
pub struct Taken {
    /// Recordings of that bot that are here.
    recordings: usize,
}

/// Takes a status: 200 whatever the bot, also one that is not ours or is finished already, so that it is not sent again.
#[utoipa::path(
    post, path = "/hooks/recall", operation_id = "recall", summary = "Recall's status webhooks", security(("webhook" = [])),
    params(
        ("webhook-id" = String, Header, description = "Of the message"),
        ("webhook-timestamp" = i64, Header, description = "Unix seconds, 300 off at most"),
    ),
    request_body = Status,
    responses(
        (status = 200, description = "Taken, also where no recording is the bot's", body = Taken),
        (status = 400, description = "Not a status of a bot", body = ErrorBody),
        (status = 401, description = "The signature is missing, wrong or too old", body = ErrorBody),
        (status = 403, description = "There is no TILECAST_RECALL_SECRET", body = ErrorBody),
        (status = 408, description = "The body did not come in time", body = ErrorBody),
        (status = 413, description = "The body has more than 256 KiB", body = ErrorBody),
    )
)]
pub async fn recall(State(app): State<App>, headers: HeaderMap, request: Body) -> Result<Json<Taken>, ApiError> {
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
    let Some((tell, bot)) = tell.zip(bot) else { return Ok(Json(Taken { recordings: 0 })) };
    // A secret of all tenants speaks for any of them.
    let theirs = |of: &Option<String>| tenant.is_none() || *of == tenant;
    let open = app.pipeline.registry.all();
    let mine = open.iter().filter(|open| open.bot_id().as_deref() == Some(&*bot) && theirs(&open.name().tenant));
    let recordings = mine.inspect(|recording| tell(recording)).count();
    tracing::info!(event = status.event, recordings, "a status of Recall's bot");
    Ok(Json(Taken { recordings }))
}
