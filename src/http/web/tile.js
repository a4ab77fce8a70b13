// One track on the page: its picture, its place on the recording's time line, its facts.

import { Source } from "./source.js";
import { count, el, kindName, ledgerText, participantName, reasonName, setText, size, span } from "./words.js";

/** Seconds between a tile and the recording's clock: below CLOSE nothing is done, up to FAR the tile runs a little faster or slower. */
const CLOSE = 0.04;
const FAR = 0.8;

export class Tile {
  /** `context` has `base`, `files`, `authorize`, and `seek(seconds)`. */
  constructor(track, context) {
    this.video = el("video", { muted: true, playsInline: true, preload: "auto", tabIndex: -1 });
    this.cover = el("p", { className: "cover", hidden: true });
    this.badge = el("span", { className: "badge live", hidden: true }, "Live");
    this.name = el("h3");
    this.kind = el("span", { className: "kind" });
    this.facts = el("p", { className: "small" });
    this.ledger = el("p", { className: "small" });
    this.gaps = el("details", { className: "small", hidden: true }, el("summary"), el("ul"));
    this.files = el("p", { className: "files" });
    this.head = el("i", { className: "head" });
    this.strip = el("div", { className: "strip", "aria-hidden": "true", onclick: (event) => this.seekAt(event) });
    this.widen = el("button", { type: "button", className: "widen", "aria-pressed": "false", onclick: () => this.toggle() }, "Enlarge");
    const screen = el("div", { className: "screen" }, this.video, this.cover, this.widen);
    const title = el("div", { className: "title" }, this.name, this.kind, this.badge);
    this.element = el("article", { className: `tile ${track.kind}`, "data-track": track.track });
    this.element.append(screen, this.strip, title, this.facts, this.ledger, this.gaps, this.files);
    this.seek = context.seek;
    const folder = encodeURIComponent(track.track);
    this.filesBase = `${context.files}${folder}/`;
    this.source = new Source(this.video, `${context.base}${folder}/`, {
      files: this.filesBase,
      authorize: context.authorize,
      report: (text) => (this.error = text),
    });
  }

  update(manifest, track) {
    [this.track, this.manifest] = [track, manifest];
    this.source.update(manifest, track);
    const name = participantName(track.participant);
    setText(this.name, name);
    setText(this.kind, kindName(track.kind) + (track.participant.is_host ? " · host" : ""));
    this.element.setAttribute("aria-label", `${name}, ${kindName(track.kind)}`);
    const ticks = track.end_tick === null ? 0 : track.end_tick - (track.first_tick ?? 0);
    const facts = [];
    if (track.width) facts.push(`${track.width}×${track.height}`);
    facts.push(ticks > 0 ? span(ticks / manifest.fps) : "no pictures yet");
    if (track.first_tick > 0) facts.push(`begins at ${span(track.first_tick / manifest.fps)}`);
    setText(this.facts, facts.join(" · "));
    setText(this.ledger, ledgerText(track.ledger));
    this.showGaps();
    this.showFiles();
    this.badge.hidden = manifest.state !== "live" || this.isAway();
  }

  /** Whether the newest ticks of the track are a gap. */
  isAway() {
    const last = this.track.gaps.at(-1);
    return this.track.first_tick === null || (last !== undefined && last.to_tick >= this.track.end_tick);
  }

  showGaps() {
    const { gaps, kind } = this.track;
    const { fps } = this.manifest;
    this.gaps.hidden = gaps.length === 0;
    const total = gaps.reduce((sum, gap) => sum + gap.to_tick - gap.from_tick, 0);
    const [summary, list] = this.gaps.children;
    setText(summary, `${count(gaps.length, "gap")}, ${span(total / fps)} in all`);
    const key = JSON.stringify(gaps);
    if (this.gapsKey === key) return;
    this.gapsKey = key;
    const line = ({ from_tick: from, to_tick: to, reason }) =>
      el("li", {}, `${reasonName(reason, kind)}: ${span((to - from) / fps)} from ${span(from / fps)} on`);
    list.replaceChildren(...gaps.slice(-50).map(line));
  }

  showFiles() {
    const key = JSON.stringify(this.track.mp4);
    if (this.filesKey === key) return;
    this.filesKey = key;
    const link = ({ path, bytes }) => {
      const file = path.split("/").at(-1);
      return el("a", { href: `${this.filesBase}${file}`, download: `${this.name.textContent} ${this.track.kind}.mp4` }, `${file} (${size(bytes)})`);
    };
    this.files.replaceChildren(...this.track.mp4.map(link));
  }

  /** Draws the track on a time line of `total` seconds. */
  drawStrip(total) {
    const { first_tick: first, gaps, kind } = this.track;
    const { fps } = this.manifest;
    const end = Math.max((this.track.end_tick ?? 0) / fps, this.source.end);
    const key = `${total} ${first} ${end} ${this.gapsKey}`;
    if (this.stripKey === key || first === null || !(total > 0)) return;
    this.stripKey = key;
    const piece = (className, from, to, title) => {
      const element = el("i", { className, title });
      element.style.left = `${(100 * from) / total}%`;
      element.style.width = `${(100 * (to - from)) / total}%`;
      return element;
    };
    const holes = gaps.map((gap) => piece("gap", gap.from_tick / fps, gap.to_tick / fps, reasonName(gap.reason, kind)));
    this.strip.replaceChildren(piece("there", first / fps, end), ...holes, this.head);
  }

  /** Brings the video to `position` (seconds of the recording), running or not. */
  follow(position, running, total) {
    this.drawStrip(total);
    this.head.style.left = `${total > 0 ? (100 * position) / total : 0}%`;
    const media = this.source.mediaAt(position);
    this.showCover(position, media);
    const { video } = this;
    if (media === null || video.readyState === 0) {
      if (!video.paused) video.pause();
      return;
    }
    const behind = media - video.currentTime;
    if (Math.abs(behind) > (running ? FAR : CLOSE)) {
      // A little inside the tick, or rounding shows the one before.
      if (!video.seeking) video.currentTime = media + 0.002;
    } else if (running) {
      const rate = Math.abs(behind) < CLOSE ? 1 : 1 + Math.max(-0.1, Math.min(0.1, behind / 2));
      if (Math.abs(video.playbackRate - rate) > 0.01) video.playbackRate = rate;
    }
    // `play` on an ended video would start over.
    if (running && video.paused && !(video.ended && behind < FAR)) video.play().catch(() => {});
    if (!running && !video.paused) video.pause();
  }

  /** Whether the tile shows `position`, or has nothing to show there. */
  isReady(position) {
    const media = this.source.mediaAt(position);
    if (media === null || this.error) return true;
    return this.video.readyState >= 2 && !this.video.seeking && Math.abs(this.video.currentTime - media) < FAR + 0.2;
  }

  showCover(position, media) {
    const text = this.error ?? this.coverText(position, media);
    this.cover.hidden = text === null;
    if (text !== null) setText(this.cover, text);
    this.element.classList.toggle("failed", Boolean(this.error));
  }

  coverText(position, media) {
    const { first_tick: first, end_tick: end, gaps, kind } = this.track;
    const tick = Math.floor(position * this.manifest.fps + 1e-6);
    if (first === null) return "Waiting for the first picture";
    if (tick < first) return kind === "screenshare" ? "Nothing shared yet" : "Not here yet";
    const gap = gaps.find(({ from_tick: from, to_tick: to }) => tick >= from && tick < to);
    if (gap) return reasonName(gap.reason, kind);
    const live = this.manifest.state === "live";
    // The MP4 goes on to the end of the recording; the media of a live track is newer than its manifest.
    if (!live && tick >= end) return "No more pictures";
    if (media !== null) return null;
    return live ? "Waiting for pictures" : "No pictures here";
  }

  seekAt(event) {
    const { left, width } = this.strip.getBoundingClientRect();
    this.seek((event.clientX - left) / width);
  }

  toggle() {
    const wide = this.element.classList.toggle("wide");
    this.widen.setAttribute("aria-pressed", String(wide));
    this.widen.textContent = wide ? "Reduce" : "Enlarge";
  }

  close() {
    this.source.close();
    this.element.remove();
  }
}
