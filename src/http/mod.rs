//! Everything that speaks HTTP: the bots' sockets, the API, media, the page.

pub mod api;
pub mod auth;
mod body;
pub mod census;
pub mod error;
mod guard;
mod hooks;
pub mod media;
pub mod outgoing;
mod play;
pub mod server;
pub mod tls;
mod reread;
pub mod web;
pub mod wire;
pub mod ws;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use crate::pipeline::store::keys::Name;
use crate::pipeline::{Current, Pipeline};
use crate::shutdown::Stop;

use auth::{Admitted, Doors};
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
        .merge(Router::new().route("/play/{grant}/{recording}/{*tail}", any(play::play)).layer(guard::cors_for_all()))
        .merge(web::router())
        .fallback(nothing)
        .with_state(app)
}

/// What needs a token, where there are any.
fn guarded(app: &App) -> Router<App> {
    let api = Router::new()
        .route("/api/v1/recordings", get(api::list))
        .route("/api/v1/recordings/{id}", get(api::get).delete(api::delete))
        .route("/api/v1/recordings/{id}/finish", post(api::finish))
        .route("/api/v1/recordings/{id}/grants", post(play::grant));
    let media = Router::new().route("/media/{recording}/{*tail}", any(serve_media));
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

async fn serve_media(
    State(app): State<App>,
    method: Method,
    Path((recording, tail)): Path<(String, String)>,
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

async fn nothing() -> ApiError {
    ApiError::not_found("page")
}
