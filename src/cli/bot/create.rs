//! `tilecast bot create`: sends a bot into a meeting, with a token of ours in the address that it dials.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Url;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::entries;

use super::recall::RecallArgs;
use super::token::{NO_KEY, TokenArgs};

/// What a bot is asked to send.
const EVENTS: [&str; 8] = [
    "video_separate_png.data",
    "participant_events.join",
    "participant_events.leave",
    "participant_events.update",
    "participant_events.webcam_on",
    "participant_events.webcam_off",
    "participant_events.screenshare_on",
    "participant_events.screenshare_off",
];

/// Options of `bot create`.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// The meeting
    #[arg(long, value_name = "URL")]
    pub meeting_url: String,

    /// Where the bot reaches this server: `wss://host` or `https://host`; of several, with a comma between, the meeting's
    /// address picks one
    #[arg(long, env = "TILECAST_PUBLIC_URL", value_name = "URL", value_delimiter = ',', required = true)]
    pub public_url: Vec<String>,

    /// Our name for the bot, for balancers and for counting refusals [default: a random one]
    #[arg(long, value_name = "NAME", value_parser = parse_key)]
    pub key: Option<String>,

    /// The name that is shown in the meeting
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// What the bot's recordings say of it: `team=blue`. May be repeated
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub metadata: Vec<(String, String)>,

    /// Bot machines: web_4_core is advised for separate video, `none` leaves the choice to Recall
    #[arg(long, default_value = "web_4_core", value_name = "NAME")]
    pub variant: String,

    /// Recall keeps nothing of the meeting
    #[arg(long)]
    pub zero_retention: bool,

    /// Print the request, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// File with the ingest tokens, instead of the variable TILECAST_INGEST_TOKEN; used where there is no key
    #[arg(long, env = "TILECAST_INGEST_TOKEN_FILE", value_name = "FILE")]
    pub ingest_token_file: Option<PathBuf>,

    #[command(flatten)]
    token: TokenArgs,

    #[command(flatten)]
    recall: RecallArgs,
}

impl CreateArgs {
    /// The server that this meeting's bots dial, always the same of the same list.
    fn server(&self) -> Result<String, String> {
        let servers = self.public_url.iter().map(|url| socket_base(url.trim())).collect::<Result<Vec<_>, _>>()?;
        let hash: [u8; 32] = Sha256::digest(self.meeting_url.as_bytes()).into();
        let number = u64::from_be_bytes(*hash.first_chunk().expect("32 bytes begin with 8"));
        Ok(servers[(number % servers.len() as u64) as usize].clone())
    }

    /// The request's body (RECALL's `POST /api/v1/bot/`).
    fn request(&self, key: &str, token: &str) -> Result<Value, String> {
        let server = self.server()?;
        let url = Url::parse(&format!("{server}/ws/recall/{key}/"));
        let mut url = url.map_err(|error| format!("--public-url {server}: {error}"))?;
        // A listed token may hold what means something else in an address.
        url.query_pairs_mut().append_pair("token", token);
        let mut request = json!({
            "meeting_url": self.meeting_url,
            "metadata": self.metadata.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect::<Map<_, _>>(),
            "recording_config": {
                "video_mixed_layout": "gallery_view_v2",
                "video_separate_png": {},
                "realtime_endpoints": [{ "type": "websocket", "url": url.as_str(), "events": EVENTS }],
            },
        });
        if let Some(name) = &self.name {
            request["bot_name"] = name.as_str().into();
        }
        if self.variant != "none" {
            let variant = self.variant.as_str();
            request["variant"] = json!({ "zoom": variant, "google_meet": variant, "microsoft_teams": variant });
        }
        if self.zero_retention {
            request["recording_config"]["retention"] = Value::Null;
        }
        Ok(request)
    }
}

/// `wss://host` of an address of ours, without what is behind it.
fn socket_base(url: &str) -> Result<String, String> {
    let wrong = || format!("--public-url {url}: write wss://host, or https://host");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "wss" | "https" => "wss",
        // For a tunnel's far end, and for tests.
        "ws" | "http" => "ws",
        _ => return Err(wrong()),
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['?', '#', ' ']) {
        return Err(wrong());
    }
    if rest.contains("/ws/recall") {
        return Err(format!("--public-url {url}: leave out /ws/recall and what follows, which is put behind it"));
    }
    Ok(format!("{scheme}://{rest}"))
}

fn parse_key(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_key = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    is_key.then(|| text.to_owned()).ok_or_else(|| "a key is 1 to 64 of A-Z a-z 0-9 _ -".to_owned())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is no name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A token for the bot: derived where there is a key, else the one that is listed for the tenant. A key that is of no use is
/// an error: a token that never expires must not stand in for it unseen.
fn token(args: &CreateArgs, clock: &dyn Clock) -> Result<String, String> {
    if let Some(derived) = args.token.derived(clock.unix())? {
        return Ok(derived);
    }
    let listed = entries("TILECAST_INGEST_TOKEN", args.ingest_token_file.as_deref());
    let listed = listed.map_err(|error| error.to_string())?;
    let of_tenant = listed.iter().find_map(|entry| match (entry.split_once(':'), &args.token.tenant) {
        (None, None) => Some(entry.clone()),
        (Some((tenant, token)), Some(asked)) if tenant == asked => Some(token.to_owned()),
        _ => None,
    });
    let token = of_tenant.ok_or_else(|| format!("{NO_KEY}; nor is a token listed for that tenant"))?;
    eprintln!(
        "tilecast: the bot gets a token of TILECAST_INGEST_TOKEN, which does not expire; with TILECAST_INGEST_KEY it gets one of its own"
    );
    Ok(token)
}

/// Creates the bot; prints its id and the page to watch.
///
/// # Errors
/// Text that names the option, or what Recall said.
pub fn run(args: &CreateArgs, clock: &dyn Clock) -> Result<ExitCode, String> {
    let key = args.key.clone().unwrap_or_else(|| format!("bot-{:016x}", rand::random::<u64>()));
    let request = args.request(&key, &token(args, clock)?)?;
    let mut out = std::io::stdout();
    let printed = |result: std::io::Result<()>| result.map_err(|error| error.to_string());
    if args.dry_run {
        let text = serde_json::to_string_pretty(&request).map_err(|error| error.to_string())?;
        printed(writeln!(out, "POST {}\n{text}", args.recall.address("bot/")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let bot = args.recall.ask(reqwest::Method::POST, "bot/", Some(&request))?;
    let id = bot["id"].as_str().ok_or("Recall's answer names no bot")?;
    let page = args.server()?.replacen("ws", "http", 1);
    printed(writeln!(out, "bot {id}\nwatch {page}/\nkey {key}"))?;
    Ok(ExitCode::SUCCESS)
}
