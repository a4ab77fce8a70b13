// The page: asks the API, lists recordings, opens one. Addresses are relative, so that the page also works below a prefix.

import { Player } from "./player.js";
import { clock, count, el, isOpen, moment, setText, stateName } from "./words.js";

const LIVE_POLL_MS = 2000;
const IDLE_POLL_MS = 10000;

const byId = (id) => document.getElementById(id);
const token = () => sessionStorage.getItem("token");
/** An address that lets others watch one recording: `#recording=...&grant=...`. It shows that alone, and asks for no token. */
const shared = () => {
  const hash = new URLSearchParams(location.hash.slice(1));
  return hash.get("grant") && hash.get("recording") ? { id: hash.get("recording"), grant: hash.get("grant") } : null;
};
const playBase = (grant, id) => `play/${encodeURIComponent(grant)}/${encodeURIComponent(id)}/`;
/** How long the page itself may fetch what cannot carry a token: MP4s, and HLS that the browser plays by itself. */
const OWN_GRANT = { ttl: "24h" };

/** Opened by hand or by address; without either, the newest live recording, else the newest. */
let chosen = new URLSearchParams(location.search).get("recording");
let opened = null;
let player = null;
let recordings = [];
/** Recordings beyond the first page, as fetched by "Show older". */
let older = [];
let cursor = null;
let timer = null;

class LockedError extends Error {}

async function api(path, request = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const response = await fetch(`api/v1/${path}`, { ...request, headers, cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 || response.status === 403) throw new LockedError(response.status === 403 ? body.error : "");
  if (!response.ok) throw Object.assign(new Error(body.error ?? `the server answered ${response.status}`), { status: response.status });
  return body;
}

function authorize(xhr) {
  if (token()) xhr.setRequestHeader("Authorization", `Bearer ${token()}`);
}

/** Shows exactly one of the page's views. */
function view(id) {
  for (const name of ["columns", "empty", "locked"]) byId(name).hidden = name !== id;
  document.body.dataset.view = id;
}

function problem(text) {
  byId("problem").hidden = !text;
  setText(byId("problem"), text ?? "");
}

/** A recording as its shared address tells it. */
async function sharedRecording({ id, grant }) {
  const response = await fetch(`${playBase(grant, id)}recording.json`, { cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

async function refresh() {
  clearTimeout(timer);
  try {
    if (shared()) {
      const recording = await sharedRecording(shared());
      recordings = [recording];
      view("columns");
      byId("recordings").hidden = true;
      await showRecording(shared().id, recording);
      problem(null);
      schedule();
      return;
    }
    byId("recordings").hidden = false;
    const page = await api("recordings");
    if (older.length === 0) cursor = page.next_cursor;
    const seen = new Set(page.recordings.map(addressOf));
    recordings = [...page.recordings, ...older.filter((recording) => !seen.has(addressOf(recording)))];
    await showRecordings();
    problem(null);
  } catch (error) {
    if (error instanceof LockedError) lock(error.message);
    else problem(error instanceof TypeError ? "The server does not answer. Trying again." : `The server reports: ${error.message}`);
  }
  schedule();
}

/** Asks for a token; `why` is what the server says where a token is of no use. */
function lock(why) {
  view("locked");
  close();
  byId("refusal").hidden = !why;
  setText(byId("refusal"), why ?? "");
}

function schedule() {
  const open = recordings.some(({ state }) => isOpen(state)) || !byId("problem").hidden;
  timer = setTimeout(() => document.hidden || refresh(), open ? LIVE_POLL_MS : IDLE_POLL_MS);
}

async function showRecordings() {
  if (recordings.length === 0 && !chosen) {
    view("empty");
    close();
    return;
  }
  view("columns");
  const id = chosen ?? opened ?? addressOf(recordings.find(({ state }) => state === "live") ?? recordings[0]);
  showList(id);
  await showRecording(id);
}

function showList(id) {
  byId("older").hidden = !cursor;
  const key = JSON.stringify([recordings, id]);
  const list = byId("recordings").querySelector("ul");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const focused = document.activeElement?.dataset?.recording;
  list.replaceChildren(...recordings.map((recording) => entry(recording, id)));
  if (focused) list.querySelector(`[data-recording="${CSS.escape(focused)}"]`)?.focus();
}

/** What a recording is called in addresses: its id, with its tenant where it has one. */
function addressOf({ address, recording_id: id }) {
  return address ?? id;
}

function entry(recording, current) {
  const { state, origin, tracks, duration_ticks: ticks, fps } = recording;
  const id = addressOf(recording);
  const facts = `${count(tracks, "track")} · ${clock((ticks ?? 0) / fps)}`;
  const link = el(
    "a",
    { href: `?recording=${encodeURIComponent(id)}`, "data-recording": id, onclick: choose, "aria-current": id === current ? "page" : null },
    el("span", { className: "when" }, moment(origin) ?? "Not started"),
    el("span", { className: "small" }, facts),
    el("span", { className: `badge ${state}` }, stateName(state)),
    el("span", { className: "small id", title: id }, id),
  );
  return el("li", {}, link);
}

function choose(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", event.currentTarget.getAttribute("href"));
  route();
}

function route() {
  chosen = new URLSearchParams(location.search).get("recording");
  refresh();
}

async function showRecording(id, told) {
  if (opened !== id) close();
  let manifest;
  try {
    manifest = told ?? await api(`recordings/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404) throw error;
    close();
    byId("recording").replaceChildren(el("p", { className: "notice" }, `There is no recording ${id} here.`));
    return;
  }
  if (!player) {
    opened = id;
    const base = told ? playBase(shared().grant, id) : `media/${encodeURIComponent(id)}/`;
    player = new Player({ base, files: told ? base : await ownBase(id, base), authorize });
    byId("recording").replaceChildren(player.element);
  }
  player.update(manifest);
  document.title = `${moment(manifest.origin) ?? id} – tilecast`;
}

/** Where a recording's files are for what cannot carry the token. */
async function ownBase(id, base) {
  if (!token()) return base;
  try {
    const { grant } = await api(`recordings/${encodeURIComponent(id)}/grants`, { method: "POST", body: JSON.stringify(OWN_GRANT) });
    return playBase(grant, id);
  } catch (error) {
    if (error instanceof LockedError) throw error;
    // hls.js plays with the token all the same.
    return base;
  }
}

function close() {
  player?.close();
  player = null;
  opened = null;
  document.title = "tilecast";
}

async function showOlder() {
  try {
    const page = await api(`recordings?cursor=${encodeURIComponent(cursor)}`);
    older.push(...page.recordings);
    cursor = page.next_cursor;
    refresh();
  } catch (error) {
    problem(`The server reports: ${error.message}`);
  }
}

function start() {
  const socket = new URL("ws/recall/", location.href);
  socket.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket.search = "";
  setText(byId("endpoint"), `${socket.href}?token=YOUR_INGEST_TOKEN`);
  setText(byId("simulate"), `tilecast simulate --url ${socket.href}`);
  byId("older").addEventListener("click", showOlder);
  byId("locked").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", byId("token").value);
    byId("token").value = "";
    refresh();
  });
  window.addEventListener("popstate", route);
  window.addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  refresh();
}

start();
