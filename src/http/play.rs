//! Watching by a grant: `POST /api/v1/recordings/{id}/grants` makes one, `/play/{grant}/...` takes it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock::rfc3339;
use crate::config::parse_duration;
use crate::media::Micros;

use super::App;
use super::asked::Asked;
use super::auth::grants::NoGrant;
use super::body;
use super::description::{Files, NotThere, Refused};
use super::error::{ApiError, ErrorBody};

/// How long a grant lasts, unless the request says otherwise.
const TTL_DEFAULT: Duration = Duration::from_secs(3600);
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const REQUEST_BYTES_MAX: usize = 4096;
const MANIFEST_BYTES_MAX: usize = 64 << 20;

/// What is asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// One track; all of them where it is left out.
    track: Option<String>,
    /// For how long: `30m`, `2h`; an hour where it is left out, seven days at most.
    #[schema(pattern = "^([1-9][0-9]{0,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]?h|[1-7]d)$")]
    ttl: Option<String>,
}

/// What is given.
#[derive(Debug, Serialize, ToSchema)]
pub struct Granted {
    /// The grant itself.
    grant: String,
    /// Until when it opens.
    expires: String,
    /// The page with that recording alone.
    page: String,
    /// The tracks that it opens.
    tracks: Vec<GrantedTrack>,
}

/// One track's address.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantedTrack {
    /// Its name.
    track: String,
    /// HLS.
    playlist: String,
}

/// `POST /api/v1/recordings/{id}/grants`.
#[utoipa::path(
    post, path = "/api/v1/recordings/{id}/grants", operation_id = "grant", summary = "Let somebody watch without a token",
    params(("id" = String, Path, description = "Its `address`", example = "meeting")),
    request_body(content = Wanted, description = "Nothing at all is an hour of the whole recording"),
    responses(
        (status = 201, description = "Addresses that need no token", body = Granted),
        (status = 408, description = "The body did not come in time", body = ErrorBody),
        (status = 413, description = "The body has more than 4096 bytes", body = ErrorBody),
        Refused, NotThere
    )
)]
pub async fn grant(
    State(app): State<App>,
    Asked(recording): Asked<String>,
    request: Body,
) -> Result<impl IntoResponse, ApiError> {
    let text = body::read(request, REQUEST_BYTES_MAX).await?;
    let wanted = match text.is_empty() {
        true => Wanted::default(),
        false => serde_json::from_slice(&text).map_err(|error| {
            ApiError::bad_request(format!("the body is {{\"track\", \"ttl\"}}, both optional: {error}"))
        })?,
    };
    let ttl = wanted.ttl.as_deref().map_or(Ok(TTL_DEFAULT), parse_duration).map_err(ApiError::bad_request)?;
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(ApiError::bad_request("ttl is 7 days (`7d`) at most, and not 0"));
    }
    let manifest = manifest(&app, &recording).await?;
    let names = manifest["tracks"].as_array().into_iter().flatten().filter_map(|track| track["track"].as_str());
    let names: Vec<&str> = names.filter(|name| wanted.track.as_deref().is_none_or(|wanted| wanted == *name)).collect();
    if wanted.track.is_some() && names.is_empty() {
        return Err(ApiError::not_found("track"));
    }
    let expires = app.pipeline.clock.unix() + Micros::from(ttl);
    let grant = app.doors.grants().grant(&recording, wanted.track.as_deref(), expires.0.div_euclid(1_000_000));
    let escaped = escape(&recording);
    let track = |name: &&str| GrantedTrack {
        track: (*name).to_owned(),
        playlist: format!("/play/{grant}/{escaped}/{name}/index.m3u8"),
    };
    let granted = Granted {
        tracks: names.iter().map(track).collect(),
        page: format!("/#recording={escaped}&grant={grant}"),
        expires: rfc3339(expires),
        grant,
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(granted)))
}

/// `GET /play/{grant}/{recording}/{track}/...`, and `GET /play/{grant}/{recording}/recording.json` for the page.
#[utoipa::path(
    get, path = "/play/{grant}/{recording}/{tail}", operation_id = "play", summary = "A file of a recording, by a grant",
    security(()),
    params(
        ("grant" = String, Path, description = "What `grants` gave"),
        ("recording" = String, Path, description = "`address` of the recording", example = "meeting"),
        ("tail" = String, Path, description = "`recording.json` (without tenant, bot and metadata), or a playlist, MP4 or \
            segment of a track that the grant is for", example = "recording.json"),
        ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
    ),
    responses(
        Files,
        (status = 403, description = "The grant is forged, over, or for something else", body = ErrorBody),
        NotThere
    )
)]
pub async fn play(
    State(app): State<App>,
    method: Method,
    Asked((grant, recording, tail)): Asked<(String, String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let now = app.pipeline.clock.unix().0.div_euclid(1_000_000);
    let limited = match app.doors.grants().check(&grant, &recording, now) {
        Ok(limited) => limited,
        Err(reason) => {
            let (name, words) = match reason {
                NoGrant::Wrong => ("wrong_grant", "this address does not open this recording"),
                NoGrant::Expired => ("expired_grant", "this address has expired"),
            };
            app.pipeline.metrics.request_refused(name);
            return ApiError::new(StatusCode::FORBIDDEN, words).into_response();
        }
    };
    if tail == "recording.json" {
        return match manifest(&app, &recording).await {
            Ok(manifest) => {
                let body = Json(for_viewers(manifest, limited.as_deref()));
                ([(header::CACHE_CONTROL, "no-store")], body).into_response()
            }
            Err(error) => error.into_response(),
        };
    }
    let Some((track, file)) = tail.split_once('/') else { return ApiError::not_found("object").into_response() };
    if limited.is_some_and(|limited| limited != track) {
        app.pipeline.metrics.request_refused("wrong_grant");
        return ApiError::new(StatusCode::FORBIDDEN, "this address does not open this track").into_response();
    }
    // The books are the operator's.
    if !["m3u8", "m4s", "mp4", "jpg"].iter().any(|kind| file.rsplit_once('.').is_some_and(|(_, end)| end == *kind)) {
        return ApiError::not_found("object").into_response();
    }
    super::serve_media(State(app), method, Asked((recording, tail)), headers).await
}

/// The recording as the API tells it.
async fn manifest(app: &App, recording: &str) -> Result<Value, ApiError> {
    let told = super::api::get(State(app.clone()), Asked(recording.to_owned())).await?;
    let body = axum::body::to_bytes(told.into_body(), MANIFEST_BYTES_MAX).await;
    let manifest = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    manifest.ok_or_else(|| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the manifest cannot be told"))
}

/// What viewers need: their tracks, without what the bot's maker said of the meeting.
fn for_viewers(mut manifest: Value, track: Option<&str>) -> Value {
    if let Some(manifest) = manifest.as_object_mut() {
        manifest.retain(|name, _| !["bot_id", "metadata", "now", "tenant"].contains(&name.as_str()));
    }
    if let (Some(only), Some(tracks)) = (track, manifest["tracks"].as_array_mut()) {
        tracks.retain(|track| track["track"] == only);
    }
    manifest
}

/// As a component of an address (RFC 3986, 2.1), or of its fragment.
fn escape(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
