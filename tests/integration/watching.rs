//! The page on a server with tokens, in a real browser: opened with a token, or by an address that shares one track.

use std::time::Duration;

use serde_json::json;
use tilecast::http::web;

use crate::access::{ADMIN, READER, bearer, finish, locked, send};
use crate::bot::{Bot, event};
use crate::browser::Browser;
use crate::harness::Server;

const PATIENCE: Duration = Duration::from_secs(40);
/// A name that would run, were it not text.
const NAME: &str = "<img src=x onerror=\"window.owned=1\"><script>window.owned=1</script>";

async fn rename(server: &Server) {
    let mut bot = Bot::connect(&server.ws()).await;
    let mut update = event("meeting", 100, "update", 5.0);
    update["data"]["data"]["participant"]["name"] = NAME.into();
    bot.send_json(&update).await;
    bot.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_page_is_opened_by_a_token_or_a_shared_address() {
    let server = locked(&["--segment", "2s"], &[]).await;
    rename(&server).await;
    finish(&server).await;
    let url = format!("http://{}/", server.public);
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.goto(&url).await;
    page.wait_for("!document.getElementById('locked').hidden", PATIENCE).await;
    page.eval(&format!("token.value = '{ADMIN}x'; document.querySelector('#locked button').click()")).await;
    page.wait_for("!sessionStorage.getItem('token').endsWith('token')", PATIENCE).await;
    page.eval(&format!("token.value = '{READER}'; document.querySelector('#locked button').click()")).await;
    page.wait_for("document.querySelectorAll('.tile').length === 2", PATIENCE).await;

    // A name is a name.
    let name = page.wait_for("document.querySelector('[data-track=\"100-webcam\"] h3').textContent", PATIENCE).await;
    assert_eq!(name, NAME);
    assert!(page.eval("window.owned ?? null").await.is_null());
    assert_eq!(page.eval("document.querySelectorAll('.tile img, .tile script').length").await, 0);

    // The token goes with media; what cannot carry it, as a download, has an address of its own.
    let file = page.wait_for("document.querySelector('.files a').getAttribute('href')", PATIENCE).await;
    let file = file.as_str().unwrap();
    assert!(file.starts_with("play/") && !file.contains(READER), "{file}");
    assert_eq!(server.get(&format!("/{file}")).await.status, 200);
    if web::has_player() {
        page.wait_for("[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)", PATIENCE)
            .await;
    }

    // Somebody without a token, with an address that shares one track.
    let path = "/api/v1/recordings/meeting/grants";
    let body = json!({ "track": "200-webcam" }).to_string();
    let granted = send(server.public, "POST", path, &[bearer(READER)], body.as_bytes()).await.json();
    let shared = granted["page"].as_str().unwrap();
    let mut guest = browser.page().await;
    guest.goto(&format!("{url}{}", shared.trim_start_matches('/'))).await;
    guest.eval("sessionStorage.clear()").await;
    guest.wait_for("document.querySelectorAll('.tile').length === 1", PATIENCE).await;
    let shown = guest.eval("document.querySelector('.tile').dataset.track").await;
    assert_eq!(shown, "200-webcam");
    assert_eq!(guest.eval("document.getElementById('recordings').hidden").await, true);
    guest.wait_for("document.querySelector('video').readyState >= 2", PATIENCE).await;
    guest.goto("about:blank").await;
    guest.goto(&format!("{url}#recording=meeting&grant=1.x.y")).await;
    guest.wait_for("problem.textContent.includes('does not open this recording')", PATIENCE).await;
}
