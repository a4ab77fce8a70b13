// Media of one track: where it comes from (hls.js, the browser's own HLS, or the finished MP4), and how times of the
// recording and of the video element map to each other.
//
// Players begin their time line at a playlist's first segment, and drop the holes at discontinuities. Every segment's
// program date time minus the recording's origin is its place in the recording, so a map of runs translates.

const RETRY_MS = [1000, 2000, 4000, 8000];

/** Runs `{from, to, media}` in seconds, from segments `{start, duration, date}` (`start` of the player, `date` in ms). */
export function runsOf(segments, originMs) {
  const runs = [];
  for (const { start, duration, date } of segments) {
    const from = (date - originMs) / 1000;
    const last = runs.at(-1);
    if (last && Math.abs(from - last.to) < 0.02 && Math.abs(last.media + (last.to - last.from) - start) < 0.02) {
      last.to = from + duration;
    } else {
      runs.push({ from, to: from + duration, media: start });
    }
  }
  return runs;
}

/** The segments of a playlist's text; all that the fallback without hls.js needs of RFC 8216. */
export function segmentsOf(text) {
  const segments = [];
  let [start, duration, date] = [0, 0, null];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("#EXT-X-PROGRAM-DATE-TIME:")) date = Date.parse(line.slice(25));
    else if (line.startsWith("#EXTINF:")) duration = Number.parseFloat(line.slice(8));
    else if (line && !line.startsWith("#") && date !== null) {
      segments.push({ start, duration, date });
      start += duration;
      date += duration * 1000;
    }
  }
  return segments;
}

/** How tracks can be played here: "hls.js", "native" or null. */
export function playerName() {
  if (window.Hls?.isSupported()) return "hls.js";
  return document.createElement("video").canPlayType("application/vnd.apple.mpegurl") ? "native" : null;
}

export class Source {
  /** `base` is the track's folder with a slash at its end, `files` the same for what carries no credentials, `authorize(xhr)` adds them,
   * `report(text|null)` shows an error. */
  constructor(video, base, { files, authorize, report }) {
    Object.assign(this, { video, base, files, authorize, report });
    this.runs = [];
    this.segments = null;
    this.failures = 0;
    this.track = null;
  }

  /** Takes the newest manifest: starts playing once there is something, and knows the origin. */
  update(manifest, track) {
    this.track = track;
    const origin = Date.parse(manifest.origin ?? "");
    if (Number.isNaN(origin)) this.origin = null;
    else if (this.origin !== origin) [this.origin, this.fps] = [origin, manifest.fps];
    this.fps = manifest.fps;
    if (!this.mode && track.first_tick !== null) this.open(manifest.state);
    if (this.mode === "native") this.readPlaylist();
    this.remap();
  }

  open(state) {
    this.mode = playerName();
    if (this.mode === "hls.js") this.openHls();
    else if (this.track.mp4.length > 0) this.openMp4();
    else if (this.mode === "native") this.video.src = `${this.files}index.m3u8`;
    else this.report("This browser plays no HLS by itself, and the server was built without hls.js. The MP4 will play here when the recording is finished.");
    if (this.mode === null && state !== "finished") this.mode = undefined;
  }

  openMp4() {
    const [mp4] = this.track.mp4;
    this.mode = "mp4";
    this.report(null);
    this.video.src = `${this.files}${mp4.path.split("/").at(-1)}`;
    this.remap();
  }

  openHls() {
    const { Hls } = window;
    // From the first segment on; buffers are small because there may be many tiles. The work per segment is only
    // re-wrapping, so a worker per tile would cost more than it saves.
    const hls = new Hls({
      startPosition: 0,
      enableWorker: false,
      maxBufferLength: 24,
      maxMaxBufferLength: 48,
      backBufferLength: 24,
      xhrSetup: this.authorize,
    });
    this.hls = hls;
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      this.failures = 0;
      this.report(null);
      this.level = details;
      this.remap();
    });
    hls.on(Hls.Events.ERROR, (_, error) => {
      if (error.fatal) this.recover(error);
    });
    hls.loadSource(`${this.base}index.m3u8`);
    hls.attachMedia(this.video);
  }

  recover(error) {
    const { Hls } = window;
    if (error.response?.code === 404 && this.track.mp4.length > 0) {
      this.close();
      this.openMp4();
      return;
    }
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    // A track that is only just open has no playlist yet: no error for the reader until it lasts.
    if (this.failures > 2) this.report(`Cannot be played at the moment (${error.response?.code || error.details}). Trying again.`);
    this.retry = setTimeout(() => {
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR) this.hls.recoverMediaError();
      else if (this.level) this.hls.startLoad();
      else this.hls.loadSource(`${this.base}index.m3u8`);
    }, wait);
  }

  async readPlaylist() {
    if (this.reading) return;
    this.reading = true;
    try {
      const response = await fetch(`${this.files}index.m3u8`);
      if (response.ok) this.segments = segmentsOf(await response.text());
      this.remap();
    } catch {
      // The next poll tries again, and the page shows that the server is away.
    } finally {
      this.reading = false;
    }
  }

  remap() {
    if (this.mode === "mp4") {
      this.runs = [{ from: 0, to: this.track.mp4[0].ticks / this.fps, media: 0 }];
      return;
    }
    const segments = this.mode === "hls.js" ? this.level?.fragments.map(ofFragment) : this.segments;
    if (!segments?.length || segments[0].date === null) return;
    const origin = this.origin ?? segments[0].date - (this.track.first_tick * 1000) / this.fps;
    this.runs = runsOf(segments, origin);
    const { seekable } = this.video;
    if (this.mode !== "native" || seekable.length === 0) return;
    // The browser's own players do not agree on whether the first segment is 0 or keeps its time, and they read the
    // playlist when they like: what they have not seen is not there.
    this.shift = seekable.start(0);
    const known = seekable.end(seekable.length - 1) - this.shift;
    this.runs = this.runs.filter(({ media }) => media < known);
    const last = this.runs.at(-1);
    if (last) last.to = Math.min(last.to, last.from + known - last.media);
  }

  /** The video's time for a time of the recording, or `null` where the track has no media. */
  mediaAt(position) {
    const run = this.runs.find(({ from, to }) => position >= from - 1e-3 && position < to);
    return run ? run.media + (position - run.from) + (this.shift ?? 0) : null;
  }

  /** Where the media known so far ends, in seconds of the recording. */
  get end() {
    return this.runs.at(-1)?.to ?? 0;
  }

  close() {
    clearTimeout(this.retry);
    this.hls?.destroy();
    this.hls = null;
    this.level = null;
    this.video.removeAttribute("src");
    this.video.load();
  }
}

function ofFragment({ start, duration, programDateTime }) {
  return { start, duration, date: programDateTime };
}
