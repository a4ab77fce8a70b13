// One recording on the page: its tiles, and the one clock that all of them follow.
//
// The clock counts seconds of the recording. It runs by itself and waits for tiles that have media but not yet a
// picture; no tile is the master, so a track that comes late, ends early or fails does not hold the others.

import { Tile } from "./tile.js";
import { clock, count, el, isOpen, moment, setText, span, stateName } from "./words.js";

const STEP_MS = 100;
/** The clock waits this long for a tile that should have a picture, then goes on without it. */
const PATIENCE_S = 5;
/** A tab in the background is woken once a second or less; what is more than this was sleep. */
const STEP_MAX_S = 2;

export class Player {
  /** `context` has `base`, the recording's folder, `files`, the same for what carries no token, and `authorize(xhr)`. */
  constructor(context) {
    this.context = { ...context, seek: (fraction) => this.seek(fraction * this.total) };
    this.tiles = new Map();
    this.playing = true;
    this.position = null;
    this.waited = 0;
    this.build();
    this.last = performance.now();
    this.timer = setInterval(() => this.step(), STEP_MS);
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
  }

  build() {
    this.heading = el("h1");
    this.state = el("span", { className: "badge" });
    this.about = el("p", { className: "small about" });
    this.grid = el("div", { className: "grid" });
    this.button = el("button", { type: "button", className: "play", onclick: () => this.toggle() });
    this.slider = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Position in the recording" });
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.time = el("span", { className: "time" });
    this.live = el("button", { type: "button", className: "golive", "aria-pressed": "false", onclick: () => this.goLive() }, "Go live");
    this.status = el("span", { className: "small status", role: "status" });
    this.wall = el("span", { className: "small wall" });
    this.keys = el("span", { className: "small keys" });
    const row = el("div", { className: "row" }, this.button, this.slider, this.time, this.live);
    const below = el("div", { className: "row below" }, this.wall, this.status, this.keys);
    this.transport = el("section", { className: "transport", "aria-label": "Playback" }, row, below);
    const title = el("div", { className: "title" }, this.heading, this.state);
    this.element = el("div", { className: "player" }, title, this.about, this.grid, this.transport);
  }

  /** Takes the newest manifest. */
  update(manifest) {
    this.manifest = manifest;
    const { fps } = manifest;
    setText(this.heading, moment(manifest.origin) ?? "Recording");
    setText(this.state, stateName(manifest.state));
    this.state.className = `badge ${manifest.state}`;
    this.live.hidden = manifest.state !== "live";
    setText(this.keys, `Space: play or pause · ← →: 5 s${this.live.hidden ? "" : " · L: live"}`);
    this.slider.step = 1 / fps;
    const about = [`Recording ${manifest.recording_id}`];
    if (manifest.bot_id) about.push(`bot ${manifest.bot_id}`);
    about.push(count(manifest.tracks.length, "track"), `${fps} pictures a second`);
    if (manifest.continues) about.push(`goes on from ${manifest.continues}`);
    if (manifest.origin_from_server) about.push("start by the server's clock");
    setText(this.about, about.join(" · "));
    for (const track of manifest.tracks) this.updateTile(track);
    const present = new Set(manifest.tracks.map(({ track }) => track));
    for (const [name, tile] of this.tiles) {
      if (present.has(name)) continue;
      tile.close();
      this.tiles.delete(name);
    }
    const starts = manifest.tracks.map(({ first_tick: first }) => first).filter((first) => first !== null);
    if (this.position === null && starts.length > 0) this.position = Math.min(...starts) / fps;
  }

  updateTile(track) {
    let tile = this.tiles.get(track.track);
    if (!tile) {
      tile = new Tile(track, this.context);
      this.tiles.set(track.track, tile);
      this.grid.append(tile.element);
    }
    tile.update(this.manifest, track);
  }

  /** Where playable media ends, in seconds of the recording. */
  get edge() {
    return Math.max(0, ...[...this.tiles.values()].map(({ source }) => source.end));
  }

  /** The length of the time line. */
  get total() {
    const ends = this.manifest.tracks.map(({ end_tick: end }) => (end ?? 0) / this.manifest.fps);
    return Math.max(this.edge, ...ends, 0);
  }

  /** Two cells behind the edge: one may be on its way while the other plays. */
  get livePosition() {
    return Math.max(0, this.edge - (2 * this.manifest.segment_ticks) / this.manifest.fps);
  }

  step() {
    const now = performance.now();
    const passed = Math.min((now - this.last) / 1000, STEP_MAX_S);
    this.last = now;
    if (!this.manifest || this.position === null) return;
    const tiles = [...this.tiles.values()];
    const starved = this.position >= this.edge;
    const unready = !starved && tiles.some((tile) => !tile.isReady(this.position));
    this.waited = this.playing && unready ? this.waited + passed : 0;
    if (this.playing && starved && this.edge > 0 && !isOpen(this.manifest.state)) this.playing = false;
    const running = this.playing && !starved && (!unready || this.waited > PATIENCE_S);
    if (running) this.position = Math.min(this.position + passed, this.edge);
    const { total } = this;
    for (const tile of tiles) tile.follow(this.position, running, total);
    this.show(total, this.playing && !running);
  }

  show(total, waiting) {
    setText(this.button, this.playing ? "Pause" : "Play");
    this.button.classList.toggle("playing", this.playing);
    this.slider.max = total;
    this.slider.value = this.position;
    this.slider.style.setProperty("--done", `${total > 0 ? (100 * this.position) / total : 0}%`);
    this.slider.setAttribute("aria-valuetext", `${span(this.position)} of ${span(total)}`);
    setText(this.time, `${clock(this.position)} / ${clock(total)}`);
    setText(this.status, waiting ? "Waiting for pictures" : "");
    const wall = new Date(Date.parse(this.manifest.origin ?? "") + this.position * 1000);
    setText(this.wall, Number.isNaN(wall.getTime()) ? "" : wall.toLocaleTimeString());
    const live = this.playing && this.edge - this.position < (3.5 * this.manifest.segment_ticks) / this.manifest.fps;
    setText(this.live, live ? "Live" : "Go live");
    this.live.setAttribute("aria-pressed", String(live));
  }

  seek(position) {
    if (!this.manifest) return;
    this.position = Math.max(0, Math.min(position, this.total));
    this.waited = 0;
    this.step();
  }

  goLive() {
    this.playing = true;
    this.seek(this.livePosition);
  }

  toggle() {
    this.playing = !this.playing;
    // At the end, play means from the start.
    if (this.playing && !isOpen(this.manifest.state) && this.position >= this.edge - 0.05) this.position = 0;
    this.step();
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented || this.position === null) return;
    const { target } = event;
    if (target.closest("input:not([type=range]), textarea, select")) return;
    const onControl = target.closest("button, a, summary, input") !== null;
    const actions = {
      " ": onControl ? null : () => this.toggle(),
      k: () => this.toggle(),
      l: () => this.manifest.state === "live" && this.goLive(),
      ArrowLeft: () => this.seek(this.position - 5),
      ArrowRight: () => this.seek(this.position + 5),
      Home: () => this.seek(0),
      End: () => this.seek(this.manifest.state === "live" ? this.livePosition : this.edge),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  close() {
    clearInterval(this.timer);
    document.removeEventListener("keydown", this.onKey);
    for (const tile of this.tiles.values()) tile.close();
    this.element.remove();
  }
}
