//! What a bucket's owner asks for reaches the store with every object: keys of one's own, storage class, checksums, types,
//! caching. Looked at where the requests arrive.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::harness::{Folders, files};
use crate::s3::{S3, Seen};
use crate::store_faults::{noisy, serve_with};

/// The requests that begin an object: PUTs of whole ones, and what begins one in parts.
fn begun(seen: &[Seen]) -> BTreeMap<String, BTreeMap<String, String>> {
    let begins = |seen: &&Seen| match seen.method.as_str() {
        "PUT" => !seen.path.contains("partNumber"),
        "POST" => seen.path.contains("uploads"),
        _ => false,
    };
    let name = |seen: &Seen| seen.path.split('?').next().unwrap().replace("/media/recordings/", "");
    seen.iter().filter(begins).map(|seen| (name(seen), seen.headers.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_object_has_its_headers() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let more = ["--store-part", "5MiB", "--store-class", "REDUCED_REDUNDANCY", "--quality", "10", "--qpmin", "5"];
    let kms = [("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"), ("AWS_SSE_KMS_KEY_ID", "our-key")];
    let server = serve_with(&s3, &folders, &more, &kms).await;
    noisy(&server, "said").await;
    server.finish("said").await;
    let seen = s3.seen();
    let begun = begun(&seen);
    let immutable = "max-age=31536000, immutable";
    for (end, media_type, caching, class) in [
        (".m4s", "video/iso.segment", immutable, Some("REDUCED_REDUNDANCY")),
        ("index.m3u8", "application/vnd.apple.mpegurl", "no-cache", None),
        ("video.mp4", "video/mp4", "no-cache", Some("REDUCED_REDUNDANCY")),
        ("recording.json", "application/json", "no-cache", None),
        ("events.jsonl", "application/jsonl", "no-cache", None),
        ("ticks.jsonl", "application/jsonl", "no-cache", None),
        ("segments.jsonl", "application/jsonl", "no-cache", None),
    ] {
        let of_kind: Vec<_> = begun.iter().filter(|(name, _)| name.ends_with(end)).collect();
        assert!(!of_kind.is_empty(), "{end}: none of {:?}", begun.keys());
        for (name, headers) in of_kind {
            let said = |header: &str| headers.get(header).map(String::as_str);
            assert_eq!((said("content-type"), said("cache-control")), (Some(media_type), Some(caching)), "{name}");
            assert_eq!(said("x-amz-storage-class"), class, "{name}");
        }
    }
    // The small objects beside the recordings as well.
    for (name, headers) in &begun {
        let said = |header: &str| headers.get(header).map(String::as_str);
        assert_eq!(said("x-amz-server-side-encryption"), Some("aws:kms"), "{name}");
        assert_eq!(said("x-amz-server-side-encryption-aws-kms-key-id"), Some("our-key"), "{name}");
    }
    // Whoever takes an object can tell whether it is what was sent.
    let hash = |path| STANDARD.encode(Sha256::digest(std::fs::read(path).unwrap()));
    let stored = files(&s3.bucket().join("recordings/said"));
    let mut compared = 0;
    for (name, path) in stored.iter().filter(|(name, _)| name.ends_with(".m4s")) {
        let headers = &begun[&format!("said/{name}")];
        assert_eq!(headers.get("x-amz-checksum-sha256"), Some(&hash(path)), "{name}");
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
    let parts = seen.iter().filter(|seen| seen.path.contains("partNumber"));
    let (with, all) = parts.fold((0, 0), |(with, all), part| {
        (with + usize::from(part.headers.contains_key("x-amz-checksum-sha256")), all + 1)
    });
    assert!(all >= 2 && with == all, "{with} of {all} parts have a checksum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_wish_the_bucket_decides() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let server = serve_with(&s3, &folders, &[], &[("AWS_SERVER_SIDE_ENCRYPTION", "AES256")]).await;
    let mut bot = crate::bot::Bot::connect(&server.ws()).await;
    let camera = [crate::bot::Camera::new(1, tilecast::media::Kind::Webcam)];
    crate::restarts::send(&mut bot, "plain", &camera, 0..9).await;
    server.finish("plain").await;
    for (name, headers) in begun(&s3.seen()) {
        assert_eq!(headers.get("x-amz-storage-class"), None, "{name}");
        assert_eq!(headers.get("x-amz-server-side-encryption").map(String::as_str), Some("AES256"), "{name}");
    }
}
