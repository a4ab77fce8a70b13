// The page: asks the API, lists recordings, opens one. Addresses are relative, so that the page also works below a prefix.

import { Player } from "./player.js";
import { clock, count, el, isOpen, moment, setText, stateName } from "./words.js";

const LIVE_POLL_MS = 2000;
const IDLE_POLL_MS = 10000;

const byId = (id) => document.getElementById(id);
const token = () => sessionStorage.getItem("token");

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

async function api(path) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const response = await fetch(`api/v1/${path}`, { headers, cache: "no-store" });
  if (response.status === 401 || response.status === 403) throw new LockedError();
  const body = await response.json().catch(() => ({}));
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

async function refresh() {
  clearTimeout(timer);
  try {
    const page = await api("recordings");
    if (older.length === 0) cursor = page.next_cursor;
    const seen = new Set(page.recordings.map(addressOf));
    recordings = [...page.recordings, ...older.filter((recording) => !seen.has(addressOf(recording)))];
    await showRecordings();
    problem(null);
  } catch (error) {
    if (error instanceof LockedError) view("locked");
    else problem(error instanceof TypeError ? "The server does not answer. Trying again." : `The server reports: ${error.message}`);
  }
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

async function showRecording(id) {
  if (opened !== id) close();
  let manifest;
  try {
    manifest = await api(`recordings/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404) throw error;
    close();
    byId("recording").replaceChildren(el("p", { className: "notice" }, `There is no recording ${id} here.`));
    return;
  }
  if (!player) {
    opened = id;
    player = new Player({ base: `media/${encodeURIComponent(id)}/`, authorize });
    byId("recording").replaceChildren(player.element);
  }
  player.update(manifest);
  document.title = `${moment(manifest.origin) ?? id} – tilecast`;
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
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  refresh();
}

start();
