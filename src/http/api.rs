//! `/api/v1/recordings`: list, look, finish. And the three small routes that machines ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::media::Tick;
use crate::pipeline::ingest::protocol::parse_absolute;
use crate::pipeline::known::StoredError;
use crate::pipeline::recording::Now;
use crate::pipeline::store::keys::Name;
use crate::pipeline::store::manifest::{Manifest, State as Life};

use super::App;
use super::asked::Asked;
use super::description::{MetadataFilter, NotThere, Refused};
use super::error::{ApiError, ErrorBody};

/// Recordings on a page, unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;

/// One entry of the list.
#[derive(Serialize, ToSchema)]
pub struct Summary {
    /// Recall's `recording.id`, with `~2` and up where it goes on after it was finished.
    recording_id: String,
    /// Its name in addresses.
    address: String,
    /// The tenant whose token the bot came with.
    tenant: Option<String>,
    /// Its life.
    state: Life,
    /// Absolute time of tick 0, RFC 3339; `null` before the first capture.
    origin: Option<String>,
    /// Recall's `bot.id`.
    bot_id: Option<String>,
    /// How many tracks it has.
    tracks: usize,
    /// Ticks up to the end of the longest track.
    #[schema(value_type = i64)]
    duration_ticks: Tick,
    /// Ticks a second.
    fps: u32,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
pub struct List {
    /// Newest first.
    recordings: Vec<Summary>,
    /// `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The manifest, and what happens right now where the recording is not ended.
#[derive(Serialize, ToSchema)]
pub struct Detail {
    #[serde(flatten)]
    manifest: Manifest,
    /// Its name in addresses.
    address: String,
    /// What happens right now, where it is not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Now>,
}

/// What is left of a recording.
#[derive(Serialize, ToSchema)]
pub struct Erased {
    /// `deleted`.
    state: Life,
}

/// `GET /api/v1/recordings`, newest first.
#[utoipa::path(
    get, path = "/api/v1/recordings", operation_id = "list", summary = "List recordings",
    params(
        ("state" = Option<Life>, Query, description = "In this state"),
        ("bot_id" = Option<String>, Query, description = "Of this bot"),
        ("since" = Option<String>, Query, format = DateTime, description = "Begun at this time or later"),
        ("metadata" = inline(Option<MetadataFilter>), Query, style = Form, explode, description =
            "`metadata.KEY=VALUE`: metadata of the bot, the recording or the endpoint say so"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Recordings on a page; 50 where it is left out"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = List),
        (status = 400, description = "A filter that is not known, or has no such value", body = ErrorBody),
        Refused
    )
)]
pub async fn list(State(app): State<App>, Query(asked): Query<BTreeMap<String, String>>) -> Result<Response, ApiError> {
    let registry = &app.pipeline.registry;
    let mut manifests: Vec<Arc<Manifest>> = registry.all().iter().map(|open| Arc::new(open.manifest())).collect();
    manifests.extend(registry.all_ended());
    let mut limit = LIMIT_DEFAULT;
    let mut after = None;
    for (key, value) in &asked {
        match key.as_str() {
            "state" => {
                use Life::{Deleted, Failed, Finished, Finishing, Live, Suspended, Unknown};
                let names = [Live, Suspended, Finishing, Finished, Failed, Deleted, Unknown].map(Life::name);
                if !names.contains(&value.as_str()) {
                    return Err(ApiError::bad_request(format!("state is one of {}", names.join(", "))));
                }
                manifests.retain(|manifest| manifest.state.name() == value);
            }
            "bot_id" => manifests.retain(|manifest| manifest.bot_id.as_deref() == Some(value)),
            "since" => {
                let wrong = || ApiError::bad_request("since is a time such as 2026-01-01T10:00:00Z");
                let since = parse_absolute(value).ok_or_else(wrong)?;
                let origin = |manifest: &Manifest| manifest.origin.as_deref().and_then(parse_absolute);
                manifests.retain(|manifest| origin(manifest).is_some_and(|origin| origin >= since));
            }
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| ApiError::bad_request(format!("limit is a number from 1 to {LIMIT_MAX}")))?;
            }
            "cursor" => after = Some(read_cursor(value)?),
            key => match key.strip_prefix("metadata.") {
                Some(name) => manifests.retain(|manifest| has_metadata(manifest, name, value)),
                None => return Err(ApiError::bad_request(format!("unknown filter `{key}`"))),
            },
        }
    }
    let place = |manifest: &Manifest| (manifest.origin.clone().unwrap_or_default(), manifest.name().address());
    manifests.sort_by_cached_key(|manifest| std::cmp::Reverse(place(manifest)));
    manifests.retain(|manifest| after.as_ref().is_none_or(|after| place(manifest) < *after));
    let more = manifests.len() > limit;
    manifests.truncate(limit);
    let next_cursor = manifests.last().filter(|_| more).map(|last| {
        let (origin, id) = place(last);
        URL_SAFE_NO_PAD.encode(format!("{origin}\n{id}"))
    });
    let recordings = manifests.iter().map(|manifest| summary(manifest)).collect();
    Ok(no_store(Json(List { recordings, next_cursor })))
}

fn summary(manifest: &Manifest) -> Summary {
    Summary {
        duration_ticks: manifest.tracks.iter().filter_map(|track| track.end_tick).max().unwrap_or(0),
        tracks: manifest.tracks.len(),
        address: manifest.name().address(),
        tenant: manifest.tenant.clone(),
        recording_id: manifest.recording_id.clone(),
        state: manifest.state,
        origin: manifest.origin.clone(),
        bot_id: manifest.bot_id.clone(),
        fps: manifest.fps,
    }
}

fn read_cursor(text: &str) -> Result<(String, String), ApiError> {
    let place = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let place = place.and_then(|place| place.split_once('\n').map(|(origin, id)| (origin.to_owned(), id.to_owned())));
    place.ok_or_else(|| ApiError::bad_request("cursor is not one of ours"))
}

/// Whether the bot's, recording's or endpoint's metadata says this.
fn has_metadata(manifest: &Manifest, name: &str, wanted: &str) -> bool {
    manifest.metadata.values().any(|object| match object.get(name) {
        Some(serde_json::Value::String(text)) => text == wanted,
        Some(value) => wanted.parse::<serde_json::Value>().is_ok_and(|wanted| *value == wanted),
        None => false,
    })
}

/// `GET /api/v1/recordings/{id}`.
#[utoipa::path(
    get, path = "/api/v1/recordings/{id}", operation_id = "get", summary = "State, tracks, ledger",
    params(("id" = String, Path, description = "Its `address`", example = "meeting")),
    responses((status = 200, description = "The manifest, and what happens right now", body = Detail), Refused, NotThere)
)]
pub async fn get(State(app): State<App>, Asked(address): Asked<String>) -> Result<Response, ApiError> {
    let name = Name::from_address(&address);
    let now = app.pipeline.registry.get(&name).map(|recording| recording.now(app.pipeline.space.is_full()));
    let manifest = manifest_of(&app, &name).await?;
    Ok(no_store(Json(Detail { address: manifest.name().address(), manifest, now })))
}

/// The manifest of a recording, wherever it is.
async fn manifest_of(app: &App, name: &Name) -> Result<Manifest, ApiError> {
    match app.pipeline.manifest_of(name).await {
        Ok(manifest) => manifest.ok_or_else(|| ApiError::not_found("recording")),
        Err(error) => Err(store_failed(&error)),
    }
}

/// 502: the store does not say, or what it has does not read.
pub fn store_failed(error: &StoredError) -> ApiError {
    tracing::warn!(%error, "cannot read a recording's place in the store");
    ApiError::new(StatusCode::BAD_GATEWAY, "the store does not give a readable manifest")
}

/// `POST /api/v1/recordings/{id}/finish`: 202 while it goes on, 200 when it is finished already. A 202 goes out once the
/// disk has it that the recording is to be finished.
#[utoipa::path(
    post, path = "/api/v1/recordings/{id}/finish", operation_id = "finish", summary = "Finish now",
    params(("id" = String, Path, description = "Its `address`", example = "meeting")),
    responses(
        (status = 200, description = "It is ended already", body = Manifest),
        (status = 202, description = "It goes on towards its end", body = Manifest),
        Refused, NotThere
    )
)]
pub async fn finish(State(app): State<App>, Asked(address): Asked<String>) -> Result<Response, ApiError> {
    let name = Name::from_address(&address);
    if let Some(recording) = app.pipeline.registry.get(&name) {
        if recording.ask_to_finish() {
            app.pipeline.keep_state(&recording).await;
        }
        let manifest = recording.manifest();
        // Its keeper may still be clearing up.
        let status = if manifest.state == Life::Finished { StatusCode::OK } else { StatusCode::ACCEPTED };
        return Ok((status, Json(manifest)).into_response());
    }
    Ok(Json(manifest_of(&app, &name).await?).into_response())
}

/// `DELETE /api/v1/recordings/{id}`: 202 once it is sure to be deleted everywhere.
#[utoipa::path(
    delete, path = "/api/v1/recordings/{id}", operation_id = "delete", summary = "Delete everywhere",
    params(("id" = String, Path, description = "Its `address`", example = "unwanted")),
    responses((status = 202, description = "It is sure to be deleted everywhere", body = Erased),
        (status = 409, description = "Another server writes this recording", body = ErrorBody), Refused, NotThere)
)]
pub async fn delete(State(app): State<App>, Asked(address): Asked<String>) -> Result<Response, ApiError> {
    match app.pipeline.erase(&Name::from_address(&address)).await {
        Ok(true) => Ok((StatusCode::ACCEPTED, Json(Erased { state: Life::Deleted })).into_response()),
        Ok(false) => Err(ApiError::not_found("recording")),
        Err(error) => Err(not_deleted(&error)),
    }
}

fn not_deleted(error: &StoredError) -> ApiError {
    match error {
        StoredError::Elsewhere => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        _ => store_failed(error),
    }
}

/// `DELETE /api/v1/recordings/{id}/tracks/{track}`: 202 once it is sure that the track is deleted everywhere.
#[utoipa::path(
    delete, path = "/api/v1/recordings/{id}/tracks/{track}", operation_id = "delete_track",
    summary = "Delete one track everywhere",
    params(
        ("id" = String, Path, description = "Its `address`", example = "unwanted"),
        ("track" = String, Path, description = "As the manifest names it", example = "100-webcam")
    ),
    responses(
        (status = 202, description = "It is sure to be deleted everywhere", body = Erased),
        (status = 409, description = "Another server writes this recording", body = ErrorBody), Refused, NotThere
    )
)]
pub async fn delete_track(
    State(app): State<App>,
    Asked((address, track)): Asked<(String, String)>,
) -> Result<Response, ApiError> {
    match app.pipeline.erase_track(&Name::from_address(&address), &track).await {
        Ok(true) => Ok((StatusCode::ACCEPTED, Json(Erased { state: Life::Deleted })).into_response()),
        Ok(false) => Err(ApiError::not_found("track")),
        Err(error) => Err(not_deleted(&error)),
    }
}

/// `GET /healthz`: alive.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", summary = "Alive", security(()),
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain"))
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: able to take a bot.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", summary = "Able to take a bot", security(()),
    responses(
        (status = 200, description = "`ready`", body = String, content_type = "text/plain"),
        (status = 503, description = "Why not, in a word", body = String, content_type = "text/plain"),
    )
)]
pub async fn readyz(State(app): State<App>) -> Response {
    if app.stop.is_rung() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if let Some(full) = app.pipeline.full() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", full.name())).into_response();
    }
    "ready\n".into_response()
}

/// `GET /metrics`, on the internal listener.
pub async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let mut levels = app.pipeline.levels();
    levels.sockets = app.sockets.load(std::sync::atomic::Ordering::SeqCst);
    levels.half_received = app.wires.half_received();
    let text = app.pipeline.metrics.text(&levels);
    let text = text.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics"))?;
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, form)], text).into_response())
}

fn no_store(body: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}
