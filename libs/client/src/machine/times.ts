/** How long things take, in milliseconds. Read as a whole: `import * as TIMES`. */

/** A token, a key, a connection until its welcome. */
export const token = 20_000;
export const sign = 15_000;
export const opening = 10_000;
/** Full jitter: a random part of `backoff * 2^failures`, at most `longest`. */
export const backoff = 1_000;
export const longest = 30_000;
/** Between tries that a hidden or offline page, or one that broke the rules, makes. */
export const slow = 60_000;
/** After which a connection has proved itself, and failures before it are forgotten. */
export const stable = 10_000;
export const ping = 25_000;
/** Of a hidden page; browsers let its timers go once in a minute. */
export const hiddenPing = 55_000;
/** How soon a place is asked for where many events stand beyond the last. */
export const soon = 1_000;
/** How long an answer to a ping may take, and where there is reason to doubt. */
export const pong = 10_000;
export const doubt = 5_000;
/** A stream brings a pong every 15 s. */
export const streamSilence = 40_000;
/** How long before its end a token is renewed, at most a fifth of what is left. */
export const renewal = 60_000;
/** What a publish that was sent has: the server knows repeats for 120 s. */
export const repeat = 90_000;
/** Changed subscriptions wait this long for others before another stream is opened. */
export const gather = 30;
/** How long a publish waits for a stream that hears its topic. */
export const hold = 5_000;
/** When a client that streams tries a WebSocket again. */
export const upgrade = 600_000;
