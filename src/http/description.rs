//! The API as OpenAPI 3.1, put together from what stands at its handlers and types: `GET /api/v1/openapi.json`. The same
//! text is in `docker/openapi.json`, for who has no server yet.
//!
//! Not here: the bots' WebSocket and `/metrics`, which speak no JSON.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Content, ObjectBuilder, RefOr, Required, Response, ResponseBuilder, ResponsesBuilder, Schema, Type,
};
use utoipa::{IntoResponses, Modify, OpenApi, PartialSchema, ToSchema};

use super::error::ErrorBody;
use super::{api, hooks, play};
use crate::pipeline::store::objects::headers::media_type;

const ABOUT: &str = "Recordings of Recall.ai meeting bots: one MP4 and live HLS for each webcam and each screenshare.\n\n\
    Every error is `{\"error\": \"...\"}`. Besides the statuses named, any request may be answered with 431 (its headers \
    have more than 32 KiB or 64 lines), 405 (Allow says which methods there are) and 503 with Retry-After (too many \
    connections). \
    `HEAD` is understood wherever `GET` is.\n\n\
    Readers ignore keys, kinds, reasons and states that they do not know.";

#[derive(OpenApi)]
#[openapi(
    info(title = "tilecast", description = ABOUT, license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    paths(
        api::list, api::get, api::finish, api::delete, api::delete_track, play::grant, description,
        super::serve_media, play::play, hooks::recall, api::healthz, api::readyz
    ),
    modifiers(&Doors),
    security(("token" = []))
)]
struct Description;

/// What opens the doors.
struct Doors;

impl Modify for Doors {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An entry of TILECAST_API_TOKEN; one with `read:` changes nothing. Without any, this machine alone is answered.",
            ))
            .build();
        let webhook = ApiKeyValue::with_description(
            "webhook-signature",
            "`v1,` and HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` in base64, with TILECAST_RECALL_SECRET; \
             `svix-id`, `svix-timestamp` and `svix-signature` as well",
        );
        // What has a body only where it says something.
        let grants = openapi.paths.paths.get_mut("/api/v1/recordings/{id}/grants").and_then(|path| path.post.as_mut());
        if let Some(body) = grants.and_then(|post| post.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        components.add_security_scheme("webhook", SecurityScheme::ApiKey(ApiKey::Header(webhook)));
    }
}

/// What the door of the API answers.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub enum Refused {
    /// No token, or an unknown one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A token that may not do this; without any tokens, a request that is not this machine's own.
    #[response(status = 403)]
    Forbidden(ErrorBody),
}

/// What is answered where one recording is asked for.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub enum NotThere {
    /// The request itself is wrong: its address is no UTF-8, its body of another form.
    #[response(status = 400)]
    Unreadable(ErrorBody),
    /// There is no such recording, track or file.
    #[response(status = 404)]
    Nothing(ErrorBody),
    /// The media store does not say, or what it has does not read.
    #[response(status = 502)]
    Store(ErrorBody),
}

/// What is answered where a file is asked for.
pub struct Files;

/// Besides the file.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
enum NoFile {
    /// It is what the reader has already.
    #[response(status = 304)]
    NotModified,
    /// With `--store-redirect`: a segment or MP4 is fetched from the store itself, by the address in Location.
    #[response(status = 307)]
    Elsewhere,
    /// The range lies outside the file.
    #[response(status = 416)]
    Unsatisfiable(ErrorBody),
    /// A playlist that is being put together again.
    #[response(status = 503)]
    Soon(ErrorBody),
}

impl IntoResponses for Files {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let file = |description: &str| {
            let kinds = ["m3u8", "mp4", "m4s", "jpg", "jsonl", "json"];
            let kinds = kinds.iter().filter_map(|kind| media_type(&format!("file.{kind}")));
            kinds.fold(ResponseBuilder::new().description(description), |file, kind| {
                file.content(kind, Content::default())
            })
        };
        ResponsesBuilder::new()
            .response("200", file("The file"))
            .response("206", file("The range that was asked for"))
            .responses_from_into_responses::<NoFile>()
            .build()
            .responses
    }
}

/// `metadata.KEY=VALUE`, for any keys.
pub struct MetadataFilter;

impl PartialSchema for MetadataFilter {
    fn schema() -> RefOr<Schema> {
        let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^metadata\\.."));
        let value = ObjectBuilder::new().schema_type(Type::String);
        let names = Some(Schema::Object(names.build()));
        ObjectBuilder::new().property_names(names).additional_properties(Some(value)).build().into()
    }
}

impl ToSchema for MetadataFilter {}

/// `GET /api/v1/openapi.json`: for who may read. It names nothing of this server but its version.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "description", summary = "This description",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), Refused)
)]
pub async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], text())
}

/// The whole description.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| Description::openapi().to_pretty_json().expect("a description is plain data") + "\n")
}
