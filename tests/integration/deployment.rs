//! The compose file and the Helm chart fall out of step with the program, or with what they are read by: `make python` brings a
//! reader of YAML, Helm's own engine and the schemas of Kubernetes. No container engine and no cluster is asked.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args as _;
use serde_json::{Value, json};

/// What `tests/deployment.py` reads, with the chart rendered for each of these values.
fn read(values: &Value) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    let mut child = Command::new(&python)
        .arg(root.join("tests/deployment.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `make python` installs it", python.display()));
    child.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The variables that `serve` reads.
fn variables() -> BTreeSet<String> {
    let command = tilecast::config::Config::augment_args(clap::Command::new("serve"));
    let of_options = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
    let secrets = ["INGEST_TOKEN", "INGEST_KEY", "RECALL_SECRET", "API_TOKEN", "GRANT_KEY", "WEBHOOK_SECRET"];
    of_options.chain(secrets.map(|name| format!("TILECAST_{name}"))).collect()
}

/// That every variable of ours is one.
fn are_known<'a>(names: impl Iterator<Item = &'a str>) {
    let known = variables();
    let ours: Vec<&str> = names.filter(|name| name.starts_with("TILECAST_")).collect();
    assert!(!ours.is_empty());
    for name in ours {
        assert!(known.contains(name), "{name} is no variable of serve");
    }
}

#[test]
fn the_compose_file_says_what_the_program_reads() {
    let read = read(&json!([{ "store": "s3://b" }]));
    let (compose, files) = (&read["compose"], &read["files"]);
    let services = compose["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["garage", "grafana", "prometheus", "simulate", "tilecast"]);
    let (tilecast, garage) = (&services["tilecast"], &services["garage"]);
    are_known(tilecast["environment"].as_object().unwrap().keys().map(String::as_str));
    // One key opens the bucket that the store names.
    let (ours, theirs) = (&tilecast["environment"], &garage["environment"]);
    assert_eq!(ours["AWS_ACCESS_KEY_ID"], theirs["GARAGE_DEFAULT_ACCESS_KEY"]);
    assert_eq!(ours["AWS_SECRET_ACCESS_KEY"], theirs["GARAGE_DEFAULT_SECRET_KEY"]);
    let bucket = theirs["GARAGE_DEFAULT_BUCKET"].as_str().unwrap();
    assert!(ours["TILECAST_STORE"].as_str().unwrap().starts_with(&format!("s3://{bucket}/")));
    assert!(compose["configs"]["garage"]["content"].as_str().unwrap().contains("api_bind_addr = \"[::]:3900\""));
    // What it writes is on a volume, its root file system is read-only, and it has the time that its end takes.
    assert_eq!((&tilecast["read_only"], &tilecast["stop_grace_period"]), (&json!(true), &json!("15s")));
    assert!(ours["TILECAST_SPOOL"].as_str().unwrap().starts_with("/data/"));
    assert_eq!(tilecast["volumes"], json!(["data:/data"]));
    // Nobody but this machine reaches anything.
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for config in service["configs"].as_array().into_iter().flatten() {
            assert!(!compose["configs"][config["source"].as_str().unwrap()].is_null(), "{name}: {config}");
        }
    }
    assert_eq!(services["simulate"]["profiles"], json!(["simulate"]));
    assert_eq!(files["prometheus"][0]["scrape_configs"][0]["static_configs"][0]["targets"], json!(["tilecast:9090"]));
    assert_eq!(files["grafana-source"][0]["datasources"][0]["url"], "http://prometheus:9090");
    let dashboards = &files["grafana-dashboards"][0]["providers"][0]["options"]["path"];
    let dashboard = &services["grafana"]["configs"][2];
    assert_eq!(dashboard["target"], format!("{}/tilecast.json", dashboards.as_str().unwrap()));
}

/// The arguments of the simulated meeting are the program's.
#[test]
fn the_simulated_meeting_can_be_played() {
    let read = read(&json!([{ "store": "s3://b" }]));
    let args = read["compose"]["services"]["simulate"]["command"].as_array().unwrap().clone();
    let help = Command::new(env!("CARGO_BIN_EXE_tilecast")).args(["simulate", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for arg in args.iter().map(|arg| arg.as_str().unwrap().split('=').next().unwrap()).skip(1) {
        assert!(help.contains(arg), "{arg}");
    }
}

fn of_kind<'a>(rendered: &'a Value, kind: &str) -> Vec<&'a Value> {
    rendered.as_array().unwrap().iter().filter(|document| document["kind"] == kind).collect()
}

#[test]
fn the_chart_is_what_kubernetes_takes_and_the_program_reads() {
    let all_secrets = ["ingest-token", "ingest-key", "recall-secret", "api-token", "grant-key", "webhook-secret"];
    let read = read(&json!([
        { "store": "s3://b/p" },
        { "store": "s3://b/p", "replicas": 3, "host": "tiles.example", "ingress": { "tlsSecret": "certificates" },
          "options": { "reconnect-grace": "90s", "store-redirect": "5m" }, "storeSecret": "aws",
          "secrets": { "name": "mine", "files": all_secrets }, "spool": { "storageClass": "fast" } },
    ]));
    let charts = &read["charts"];
    if !cfg!(target_arch = "x86_64") && charts.is_null() {
        // There is no engine for this machine (tests/requirements.txt).
        return;
    }
    assert_eq!((&charts["lint"]["errors"], &charts["lint"]["total_charts_linted"]), (&json!([]), &json!(1)));
    assert!(charts["lint"]["messages"].as_array().unwrap().iter().all(|message| message["severity"] == 1));
    assert!(charts["without_store"].as_str().unwrap().contains("store: where recordings land"));
    let [one, three] = &charts["rendered"].as_array().unwrap()[..] else { panic!("two of them") };
    for rendered in [one, three] {
        let set = of_kind(rendered, "StatefulSet")[0];
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let names = container["env"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap());
        are_known(names);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
        // More than the ten seconds that an orderly end takes.
        assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > 10);
        // The spool lies on the claim.
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "data");
        assert_eq!(container["volumeMounts"][0], json!({ "name": "data", "mountPath": "/data" }));
    }
    assert_eq!((of_kind(one, "Ingress").len(), of_kind(one, "Service").len()), (0, 2));
    // Each of several has a name of its own, under which it is reached whatever it thinks of new bots.
    let hosts: Vec<&Value> =
        of_kind(three, "Ingress")[0]["spec"]["rules"].as_array().unwrap().iter().map(|rule| &rule["host"]).collect();
    assert_eq!(hosts, ["tilecast-0.tiles.example", "tilecast-1.tiles.example", "tilecast-2.tiles.example"]);
    let services = of_kind(three, "Service");
    assert_eq!(services.len(), 4);
    for (n, service) in services[1..].iter().enumerate() {
        let selector = &service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"];
        assert_eq!(
            (selector, &service["spec"]["publishNotReadyAddresses"]),
            (&json!(format!("tilecast-{n}")), &json!(true))
        );
    }
    let notes = of_kind(three, "Notes")[0]["text"].as_str().unwrap();
    let servers = "TILECAST_PUBLIC_URL=wss://tilecast-0.tiles.example,wss://tilecast-1.tiles.example,wss://tilecast-2.tiles.example";
    assert!(notes.contains(servers), "{notes}");
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/helm/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("version: {version}\n")) && chart.contains(&format!("appVersion: \"{version}\"")));
}
