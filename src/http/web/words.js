// Numbers, states and reasons in plain words, and the one helper that makes elements. No state.

/** An element with properties (`class`, `data-*`, `aria-*` and other attributes, or DOM properties) and children. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets text only where it differs, so that readers and selections are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** 75.5 -> "1:15", 3661 -> "1:01:01". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** 75.5 -> "1 min 16 s". */
export function span(seconds) {
  if (seconds < 59.5) return `${Number(seconds.toFixed(seconds < 10 ? 1 : 0))} s`;
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h} h ${m} min` : s > 0 ? `${m} min ${s} s` : `${m} min`;
}

export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** The moment of an RFC 3339 text in the reader's own zone. */
export function moment(text) {
  const date = new Date(text ?? NaN);
  if (Number.isNaN(date.getTime())) return null;
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return date.toLocaleString(undefined, { year, month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
}

const STATES = {
  live: "Live",
  suspended: "Suspended",
  finishing: "Finishing",
  finished: "Finished",
  failed: "Failed",
  deleted: "Deleted",
};

export function stateName(state) {
  return STATES[state] ?? state;
}

/** Whether more may still come. */
export function isOpen(state) {
  return state === "live" || state === "suspended" || state === "finishing";
}

const REASONS = {
  not_joined: ["Not in the meeting", "Nothing shared"],
  camera_off: ["Camera is off", "Sharing is off"],
  paused: ["Recording paused"],
  disconnected: ["Bot was not connected"],
  server_down: ["Server was not running"],
  overloaded: ["Left out under load"],
  spool_full: ["Server's disk was full"],
  undecodable: ["Pictures were broken"],
  unknown: ["No pictures came"],
};

export function reasonName(reason, kind) {
  const names = REASONS[reason] ?? [reason.replaceAll("_", " ")];
  return kind === "screenshare" ? names.at(-1) : names[0];
}

const KINDS = { webcam: "Webcam", screenshare: "Screenshare" };

export function kindName(kind) {
  return KINDS[kind] ?? kind;
}

export function participantName(participant) {
  return participant.name || `Participant ${participant.id}`;
}

/** The books of a track in one sentence: every capture, every tick. */
export function ledgerText(ledger) {
  const discarded = Object.entries(ledger.discarded ?? {}).filter(([, n]) => n > 0);
  const lost = discarded.reduce((sum, [, n]) => sum + n, 0);
  const parts = [`${count(ledger.received, "capture")} received, ${ledger.encoded.toLocaleString("en")} shown`];
  if (lost > 0) {
    const reasons = discarded.map(([reason, n]) => `${n.toLocaleString("en")} ${reason.replaceAll("_", " ")}`);
    parts.push(`${lost.toLocaleString("en")} left out (${reasons.join(", ")})`);
  }
  if (ledger.held > 0) parts.push(`${count(ledger.held, "tick")} held`);
  if (ledger.filled > 0) parts.push(`${ledger.filled.toLocaleString("en")} filled`);
  return parts.join(" · ");
}
