//! What is said of an object by its name: its type, and how long others may keep it. The same words stand with the object
//! in a cloud's store and in the answers under `/media`.

use object_store::path::Path as Key;
use object_store::{Attribute, Attributes};

/// The Content-Type of an object by its name; `None` for what is not served.
pub fn media_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "m3u8" => "application/vnd.apple.mpegurl",
        "m4s" => "video/iso.segment",
        "mp4" => "video/mp4",
        "json" => "application/json",
        "jsonl" => "application/jsonl",
        "jpg" => "image/jpeg",
        _ => return None,
    })
}

/// The Cache-Control of an object by its name. Segments and init segments never change under their name; everything else
/// may be written again.
pub fn caching(name: &str) -> &'static str {
    if is_fixed(name) { "max-age=31536000, immutable" } else { "no-cache" }
}

/// Whether an object is written once and then stays as it is.
fn is_fixed(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.ends_with(".m4s") || file.starts_with("init-")
}

/// What a cloud's store keeps with an object. `class` is for what is large and stays: the small objects are written again
/// and again, and cheap classes charge for that.
pub(super) fn attributes(key: &Key, class: Option<&str>) -> Attributes {
    let name = key.as_ref();
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, media_type(name).unwrap_or("application/octet-stream").into());
    attributes.insert(Attribute::CacheControl, caching(name).into());
    if let Some(class) = class.filter(|_| is_fixed(name) || name.ends_with("/video.mp4")) {
        attributes.insert(Attribute::StorageClass, class.to_owned().into());
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_object_has_its_headers() {
        let immutable = "max-age=31536000, immutable";
        for (name, media_type, caching, class) in [
            ("r/t/index.m3u8", "application/vnd.apple.mpegurl", "no-cache", None),
            ("r/t/0000000-abcdef/000001.m4s", "video/iso.segment", immutable, Some("IA")),
            ("r/t/init-01234567.mp4", "video/mp4", immutable, Some("IA")),
            ("r/t/video.mp4", "video/mp4", "no-cache", Some("IA")),
            ("r/recording.json", "application/json", "no-cache", None),
            ("r/events.jsonl", "application/jsonl", "no-cache", None),
            ("r/t/other", "application/octet-stream", "no-cache", None),
        ] {
            let attributes = attributes(&Key::parse(name).unwrap(), Some("IA"));
            let said = |attribute| attributes.get(&attribute).map(|value| value.as_ref());
            assert_eq!(said(Attribute::ContentType), Some(media_type), "{name}");
            assert_eq!(said(Attribute::CacheControl), Some(caching), "{name}");
            assert_eq!(said(Attribute::StorageClass), class, "{name}");
        }
    }
}
