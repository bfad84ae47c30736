/** Frames from clients (docs/protocols/courier.md): text to a checked shape, or the error to answer. */
import { exceedsDepth, ProblemError } from '@posthorn/contracts';

export type ClientFrame =
  | { readonly action: 'subscribe'; readonly topic: string; readonly since?: string; readonly ref?: string }
  | { readonly action: 'unsubscribe'; readonly topic: string; readonly ref?: string }
  | {
      readonly action: 'publish';
      readonly topic: string;
      readonly message: object;
      readonly id?: string;
      readonly ref?: string;
    }
  | { readonly action: 'broadcast'; readonly message: object; readonly id?: string; readonly ref?: string }
  | { readonly action: 'auth'; readonly token: string; readonly ref?: string }
  | { readonly action: 'ping'; readonly ref?: string };

/** A frame that is none: the peer is told why, and it counts as a strike. */
export class MalformedFrame extends ProblemError {
  readonly ref: string | undefined;

  constructor(detail: string, path: string, ref?: string) {
    super('request_invalid', detail, { errors: [{ path, message: detail }] });
    this.ref = ref;
  }
}

/** The longest `ref`: it is echoed, and must not become a way to store data in frames. */
const REF_LIMIT = 256;

/** @throws MalformedFrame */
export function parseClientFrame(text: string): ClientFrame {
  return checkClientFrame(parseFrame(text));
}

/**
 * The object in a frame, whatever it says.
 * @throws MalformedFrame
 */
export function parseFrame(text: string): Record<string, unknown> {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    throw new MalformedFrame('The frame is not JSON', '');
  }
  if (!isObject(frame)) throw new MalformedFrame('The frame is no JSON object', '');
  return frame;
}

/** @throws MalformedFrame */
export function checkClientFrame(frame: Record<string, unknown>): ClientFrame {
  const ref = refOf(frame);
  const { action } = frame;
  switch (action) {
    case 'subscribe':
      return {
        action,
        topic: textOf(frame, 'topic', ref),
        ...optional(frame, 'since', ref),
        ...withRef(ref),
      };
    case 'unsubscribe':
      return { action, topic: textOf(frame, 'topic', ref), ...withRef(ref) };
    case 'publish':
      return {
        action,
        topic: textOf(frame, 'topic', ref),
        message: messageOf(frame, ref),
        ...optional(frame, 'id', ref),
        ...withRef(ref),
      };
    case 'broadcast':
      return { action, message: messageOf(frame, ref), ...optional(frame, 'id', ref), ...withRef(ref) };
    case 'auth':
      return { action, token: textOf(frame, 'token', ref), ...withRef(ref) };
    case 'ping':
      return { action, ...withRef(ref) };
    default:
      throw new MalformedFrame(
        'action must be subscribe, unsubscribe, publish, broadcast, auth or ping',
        '/action',
        ref,
      );
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refOf(frame: Record<string, unknown>): string | undefined {
  const { ref } = frame;
  if (ref === undefined) return undefined;
  if (typeof ref !== 'string' || ref.length > REF_LIMIT) {
    throw new MalformedFrame(`ref must be a text of at most ${REF_LIMIT} characters`, '/ref');
  }
  return ref;
}

function textOf(frame: Record<string, unknown>, name: string, ref: string | undefined): string {
  const value = frame[name];
  if (typeof value !== 'string' || value === '')
    throw new MalformedFrame(`${name} must be a text`, `/${name}`, ref);
  return value;
}

function optional<K extends string>(
  frame: Record<string, unknown>,
  name: K,
  ref: string | undefined,
): { [P in K]?: string } {
  return frame[name] === undefined ? {} : ({ [name]: textOf(frame, name, ref) } as { [P in K]?: string });
}

function messageOf(frame: Record<string, unknown>, ref: string | undefined): object {
  const { message } = frame;
  if (!isObject(message)) throw new MalformedFrame('message must be an object', '/message', ref);
  if (exceedsDepth(message)) throw new MalformedFrame('message is nested too deeply', '/message', ref);
  return message;
}

function withRef(ref: string | undefined): { ref?: string } {
  return ref === undefined ? {} : { ref };
}
