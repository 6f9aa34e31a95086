// Text as people read it: numbers with units, and text from elsewhere without surprises.

// Control characters, format characters (which set directions, join or are invisible), line
// separators, characters for private use and unpaired halves of others.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/u;

/**
 * Splits a text into pieces that can be shown as they are and escapes for the others. A new line
 * stays, since only the page itself writes any: in JSON they are escaped.
 * @param {string} text
 * @returns {{text: string, escape: boolean}[]}
 */
export function pieces(text) {
  if (!UNSEEN.test(text)) {
    return [{ text, escape: false }];
  }
  const found = [];
  let plain = "";
  for (const character of text) {
    if (character === "\n" || !UNSEEN.test(character)) {
      plain += character;
      continue;
    }
    if (plain) {
      found.push({ text: plain, escape: false });
      plain = "";
    }
    found.push({ text: `\\u{${character.codePointAt(0).toString(16)}}`, escape: true });
  }
  if (plain) {
    found.push({ text: plain, escape: false });
  }
  return found;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** Returns a count: 12,345. */
export function count(value) {
  return WHOLE.format(value);
}

/** Returns a count in little room: 12,345, then 123k, 1.23M. */
export function brief(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(value) >= size * (unit === "k" ? 100 : 1)) {
      return `${SHORT.format(value / size)}${unit}`;
    }
  }
  return Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(1) : WHOLE.format(value);
}

/** Returns a size: 12.3 MiB. */
export function bytes(value) {
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB"]) {
    if (value < 1024) {
      break;
    }
    value /= 1024;
    unit = next;
  }
  return `${unit === "B" || value >= 100 ? WHOLE.format(value) : value.toFixed(1)} ${unit}`;
}

/** Returns a duration that is given in ms: 250 µs, 2.5 ms, 1 s. */
export function duration(ms) {
  if (ms < 1) {
    return `${SHORT.format(ms * 1000)} µs`;
  }
  return ms < 1000 ? `${SHORT.format(ms)} ms` : `${SHORT.format(ms / 1000)} s`;
}

/** Returns how long ago a time was, which is given in Unix seconds. */
export function ago(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) {
      return `${Math.floor(seconds / size)} ${unit}`;
    }
  }
  return `${seconds} s`;
}

/** Returns the time of day with milliseconds. */
export function clock(ms) {
  const at = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** Returns a name of the relay as words: too_slow becomes "too slow". */
export function words(name) {
  return name.replaceAll("_", " ");
}

/** Returns "1 event" or "2 events". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Splits a list of topics that a person has typed, by spaces and commas. */
export function topicList(text) {
  return text.split(/[\s,]+/).filter(Boolean);
}
