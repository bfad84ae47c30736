/** What the SDK takes of its surroundings, browsers and Node alike: by these names alone, and nothing else. */
import type { Fetch, WebSocketConstructor } from './types.js';

interface EventTargetLike {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}

interface Surroundings extends Partial<EventTargetLike> {
  readonly WebSocket?: WebSocketConstructor;
  readonly fetch?: Fetch;
  readonly document?: EventTargetLike & { readonly visibilityState: string };
  readonly navigator?: { readonly onLine?: boolean };
  readonly performance: { now(): number };
  readonly crypto: { getRandomValues(bytes: Uint32Array): Uint32Array };
}

export const surroundings = globalThis as unknown as Surroundings;

/** Random 32-bit numbers. `crypto.randomUUID` is left out on pages without https. */
export function randomWords(count: number): Uint32Array {
  return surroundings.crypto.getRandomValues(new Uint32Array(count));
}

/** A UUID, version 4. */
export function randomId(): string {
  const hex = Array.from(randomWords(4), (word) => word.toString(16).padStart(8, '0')).join('');
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, '$1-$2-4$3-a$4-$5');
}

/**
 * Milliseconds that never go back, and that go on while the machine sleeps: of the two clocks there are, one may be
 * set, the other may stand still.
 */
export function newClock(): () => number {
  const { performance } = surroundings;
  let lastWall = Date.now();
  let lastSteady = performance.now();
  let now = 0;
  return () => {
    const wall = Date.now();
    const steady = performance.now();
    now += Math.max(0, wall - lastWall, steady - lastSteady);
    lastWall = wall;
    lastSteady = steady;
    return now;
  };
}

/**
 * Tells whether there is a network, and whether somebody looks at the page: at once, and with each change.
 * @returns stops it
 */
export function watchPage(
  online: (isOnline: boolean) => void,
  visible: (isVisible: boolean) => void,
): () => void {
  const { document, navigator } = surroundings;
  const isUp = () => online(true);
  const isDown = () => online(false);
  const look = () => visible(document?.visibilityState !== 'hidden');
  const watched: [Partial<EventTargetLike> | undefined, string, () => void][] = [
    [surroundings, 'online', isUp],
    [surroundings, 'offline', isDown],
    [document, 'visibilitychange', look],
    // A page that comes back from the browser's store of pages.
    [surroundings, 'pageshow', look],
  ];
  if (navigator?.onLine === false) isDown();
  if (document) look();
  for (const [target, type, listener] of watched) target?.addEventListener?.(type, listener);
  return () => {
    for (const [target, type, listener] of watched) target?.removeEventListener?.(type, listener);
  };
}
