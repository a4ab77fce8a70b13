//! `tilecast bot status` and `tilecast bot leave`: what became of a bot, and its end.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::recall::RecallArgs;

/// Options of both.
#[derive(Clone, Debug, clap::Args)]
pub struct OneBotArgs {
    /// Recall's id of the bot
    #[arg(value_name = "BOT", value_parser = parse_id)]
    pub bot: String,

    #[command(flatten)]
    recall: RecallArgs,
}

/// It becomes part of an address.
fn parse_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then(|| text.to_owned()).ok_or_else(|| "an id has letters, digits and - only".to_owned())
}

/// One line of what Recall knows: its words, without what would steer a terminal, and without tokens in addresses.
fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.split_once('?').map_or(text.clone(), |(before, _)| before.to_owned())
}

/// The lines of endpoints, which are in a recording, or asked for where there is none yet.
fn of_endpoints(endpoints: &Value) -> impl Iterator<Item = String> {
    endpoints.as_array().into_iter().flatten().map(|endpoint| {
        let code = match &endpoint["status"]["code"] {
            Value::Null => "not dialed yet".to_owned(),
            code => shown(code),
        };
        format!("  endpoint {}: {code}", shown(&endpoint["url"]))
    })
}

/// The lines that tell a bot's state, and whether all is well with the endpoints that it sends to.
fn told(bot: &Value) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let (mut well, mut dialed) = (true, false);
    if let Some(last) = bot["status_changes"].as_array().and_then(|changes| changes.last()) {
        well &= last["code"] != "fatal";
        lines.push(format!("bot: {}", shown(&last["code"])));
        lines.extend(last["sub_code"].as_str().map(|_| format!("  because: {}", shown(&last["sub_code"]))));
    }
    for recording in bot["recordings"].as_array().into_iter().flatten() {
        lines.push(format!("recording {}: {}", shown(&recording["id"]), shown(&recording["status"]["code"])));
        let endpoints = &recording["realtime_endpoints"];
        well &= !endpoints.as_array().into_iter().flatten().any(|endpoint| endpoint["status"]["code"] == "failed");
        lines.extend(of_endpoints(endpoints));
        dialed |= endpoints.as_array().is_some_and(|endpoints| !endpoints.is_empty());
    }
    if !dialed {
        lines.extend(of_endpoints(&bot["recording_config"]["realtime_endpoints"]));
    }
    (lines, well)
}

/// Prints a bot's state; exit code 1 when it or one of its endpoints has failed.
///
/// # Errors
/// What Recall said, and when that tells nothing of a bot.
pub fn status(args: &OneBotArgs) -> Result<ExitCode, String> {
    let bot = args.recall.ask(reqwest::Method::GET, &format!("bot/{}/", args.bot), None)?;
    let (lines, well) = told(&bot);
    if lines.is_empty() {
        return Err(format!(
            "Recall's answer tells nothing of bot {}: no status_changes, no recordings, no realtime_endpoints",
            args.bot
        ));
    }
    let mut out = std::io::stdout();
    for line in lines {
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells a bot to leave.
///
/// # Errors
/// What Recall said.
pub fn leave(args: &OneBotArgs) -> Result<ExitCode, String> {
    args.recall.ask(reqwest::Method::POST, &format!("bot/{}/leave_call/", args.bot), None)?;
    writeln!(std::io::stdout(), "bot {} leaves", args.bot).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_endpoint_is_told() {
        let bot = |endpoint: &str, code: &str| {
            json!({ "status_changes": [{ "code": "joining_call" }, { "code": code, "sub_code": null }],
                "recordings": [{ "id": "r", "status": { "code": "processing" }, "realtime_endpoints":
                    [{ "url": "wss://host/ws/recall/?token=hush", "status": { "code": endpoint } }] }] })
        };
        let lines = ["bot: in_call_recording", "recording r: processing", "  endpoint wss://host/ws/recall/: failed"];
        assert_eq!(told(&bot("failed", "in_call_recording")), (lines.map(str::to_owned).to_vec(), false));
        assert!(told(&bot("connected", "done")).1);
        assert!(!told(&bot("connected", "fatal")).1);
        assert_eq!(told(&json!({})), (Vec::new(), true));
        let asked = json!([{ "type": "websocket", "url": "wss://host/ws/recall/?token=hush" }]);
        let early = |recordings: Value| {
            let config = json!({ "realtime_endpoints": asked });
            told(&json!({ "status_changes": [], "recordings": recordings, "recording_config": config }))
        };
        let line = "  endpoint wss://host/ws/recall/: not dialed yet".to_owned();
        assert_eq!(early(json!([])), (vec![line.clone()], true));
        let without = json!([{ "id": "r", "status": { "code": "processing" }, "realtime_endpoints": [] }]);
        assert_eq!(early(without), (vec!["recording r: processing".to_owned(), line], true));
        assert!(parse_id("0c3e7f4e-8f1d").is_ok() && parse_id("../bot").is_err());
    }
}
