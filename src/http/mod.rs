//! Everything that speaks HTTP: the bots' sockets, the API, media, the page.

pub mod api;
pub mod arrivals;
mod asked;
pub mod auth;
mod body;
pub mod census;
pub mod description;
pub mod error;
mod guard;
mod hooks;
pub mod media;
pub mod outgoing;
mod pieces;
mod play;
mod reread;
pub mod server;
pub mod tls;
pub mod web;
pub mod wire;
pub mod ws;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};

use crate::pipeline::store::keys::Name;
use crate::pipeline::{Current, Pipeline};
use crate::shutdown::Stop;

use asked::Asked;
use auth::{Admitted, Doors};
use description::{Files, NotThere, Refused};
use error::ApiError;
use wire::Wires;

/// What every handler may use.
#[derive(Clone, Debug)]
pub struct App {
    /// The five stages.
    pub pipeline: Arc<Pipeline>,
    /// Who may do what.
    pub doors: Arc<Doors>,
    /// Rung when no new bot is taken.
    pub stop: Arc<Stop>,
    /// Rung when sockets are to be closed.
    pub closing: Arc<Stop>,
    /// Open WebSockets.
    pub sockets: Arc<AtomicU64>,
    /// The connections of the public listener.
    pub wires: Arc<Wires>,
}

impl App {
    /// Whether a bot that is let in for recordings that are here alone finds any.
    fn has_use_for(&self, admitted: &Admitted) -> bool {
        admitted.pass.refuses(self.pipeline.clock.unix()).is_none()
            || self.pipeline.registry.has_live(admitted.tenant.as_deref())
    }
}

/// The public listener's routes.
pub fn public(app: App) -> Router {
    Router::new()
        .route("/ws/recall", any(ws::upgrade))
        .route("/ws/recall/", any(ws::upgrade))
        .route("/ws/recall/{key}", any(ws::upgrade))
        .route("/ws/recall/{key}/", any(ws::upgrade))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/hooks/recall", post(hooks::recall))
        .merge(guarded(&app))
        .merge(playing())
        .merge(web::router())
        .method_not_allowed_fallback(not_so)
        .fallback(nothing)
        .with_state(app)
}

/// What needs no token, but a grant.
fn playing() -> Router<App> {
    let play = Router::new().route("/play/{grant}/{recording}/{*tail}", get(play::play));
    // What is answered to other methods stands behind the layer, which answers the browsers' own questions.
    play.method_not_allowed_fallback(not_so).layer(guard::cors_for_all())
}

/// What needs a token, where there are any.
fn guarded(app: &App) -> Router<App> {
    let api = Router::new()
        .route("/api/v1/openapi.json", get(description::description))
        .route("/api/v1/recordings", get(api::list))
        .route("/api/v1/recordings/{id}", get(api::get).delete(api::delete))
        .route("/api/v1/recordings/{id}/tracks/{track}", delete(api::delete_track))
        .route("/api/v1/recordings/{id}/finish", post(api::finish))
        .route("/api/v1/recordings/{id}/grants", post(play::grant));
    let media = Router::new().route("/media/{recording}/{*tail}", get(serve_media));
    let media = media.method_not_allowed_fallback(not_so);
    let guard = axum::middleware::from_fn_with_state(app.clone(), guard::guard);
    let origins = &app.pipeline.config.doors.cors;
    api.route_layer(guard.clone()).merge(match origins.is_empty() {
        true => media.route_layer(guard),
        false => media.route_layer(guard).layer(guard::cors(origins)),
    })
}

/// The internal listener's routes.
pub fn internal(app: App) -> Router {
    Router::new()
        .route("/metrics", get(api::metrics))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .fallback(nothing)
        .with_state(app)
}

/// `GET /media/{recording}/...`: playlists, segments, MP4s, the manifest, with ranges and validators.
#[utoipa::path(
    get, path = "/media/{recording}/{tail}", operation_id = "media", summary = "A file of a recording",
    params(
        ("recording" = String, Path, description = "`address` of the recording", example = "meeting"),
        ("tail" = String, Path, description = "`recording.json`, or `{track}/index.m3u8`, `{track}/video.mp4` and what the \
            playlist names; slashes may stand as they are", example = "100-webcam/index.m3u8"),
        ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
    ),
    responses(Files, Refused, NotThere)
)]
async fn serve_media(
    State(app): State<App>,
    method: Method,
    Asked((recording, tail)): Asked<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    // The address has the recording's own name, which may hold anything once it is decoded; the store has its folder.
    let name = Name::from_address(&recording);
    match app.pipeline.current_playlist(&name, &tail) {
        Current::Text(text) => return media::playlist(&text, &method),
        Current::Soon => return media::soon(),
        Current::Stored => {}
    }
    let folder = match app.pipeline.folder_of(&name).await {
        Ok(folder) => folder.and_then(|folder| object_store::path::Path::parse(folder).ok()),
        Err(error) => return api::store_failed(&error).into_response(),
    };
    match folder.and_then(|folder| media::key(&folder, &tail)) {
        Some(key) => {
            // What is not ended has its newest segments nowhere else.
            let ended = app.pipeline.registry.get(&name).is_none();
            match if ended { app.pipeline.objects.signed(&method, &key).await } else { None } {
                Some(address) => media::elsewhere(&address),
                None => media::object(&*app.pipeline.objects.store, &key, &headers, &method).await,
            }
        }
        None => ApiError::not_found("object").into_response(),
    }
}

async fn not_so() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "not by this method; Allow says which")
}

async fn nothing() -> ApiError {
    ApiError::not_found("page")
}
