import { writeSync } from 'node:fs';
import { types } from 'node:util';
import type { LoggerService } from '@nestjs/common';
import { type DestinationStream, type LevelWithSilent, type Logger, pino } from 'pino';
import { readableLine } from './readable.js';

export type { Logger };

/** Who logs, and how much. */
export interface LoggerOptions {
  readonly app: string;
  readonly instance?: string;
  readonly level?: LevelWithSilent;
  /** How standard output is written to; where absent: text on a terminal, else JSON. */
  readonly format?: 'json' | 'text' | undefined;
  /** Where the lines go; standard output when not given. */
  readonly destination?: DestinationStream;
}

/** Fields whose values never reach a log, whatever object they come in with. */
const HIDDEN = [
  'authorization',
  'Authorization',
  'cookie',
  'token',
  'accessToken',
  'access_token',
  'refresh_token',
  'jwt',
  'key',
  'apiKey',
  'secret',
  'jwtSecret',
  'keySecret',
  'clientSecret',
  'password',
  'pass',
  'payload',
];

/**
 * What a log line keeps of an error: not its other properties, where database errors carry the parameters of
 * the statement and clients the headers of the request.
 */
export function loggedError(error: unknown): unknown {
  if (!types.isNativeError(error)) return error;
  const { name, message, stack, cause } = error;
  const code = 'code' in error ? error.code : undefined;
  return {
    type: name,
    message,
    ...(code === undefined ? {} : { code }),
    stack,
    ...(cause === undefined ? {} : { cause: loggedError(cause) }),
    ...(error instanceof AggregateError ? { errors: error.errors.map(loggedError) } : {}),
  };
}

/** A JSON logger: one line per event, ISO times, level names, secrets censored up to three levels deep. */
export function createLogger({ app, instance, level = 'info', format, destination }: LoggerOptions): Logger {
  return pino(
    {
      level,
      base: { app, ...(instance ? { instance } : {}) },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: loggedError },
      redact: {
        paths: HIDDEN.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
        censor: '[hidden]',
      },
    },
    // Synchronous, so that the last line before an exit is never lost.
    destination ?? standardOutput(format ?? (process.stdout.isTTY ? 'text' : 'json')),
  );
}

function standardOutput(format: 'json' | 'text'): DestinationStream {
  if (format === 'json') return pino.destination({ fd: 1, sync: true });
  return { write: (line) => void writeSync(1, readableLine(line)) };
}

/**
 * Nest's own lines through the same logger: `NestFactory.create(module, { logger: nestLogger(logger) })`.
 * Nest puts the context last, and for errors the stack before it.
 */
export function nestLogger(logger: Logger): LoggerService {
  const write =
    (level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace') =>
    (message: unknown, ...rest: unknown[]) => {
      const context = typeof rest.at(-1) === 'string' ? (rest.pop() as string) : undefined;
      const stack = typeof rest[0] === 'string' ? rest[0] : undefined;
      const fields = { ...(context ? { context } : {}), ...(stack ? { stack } : {}) };
      if (message instanceof Error) logger[level]({ ...fields, err: message }, message.message);
      else logger[level](fields, typeof message === 'string' ? message : JSON.stringify(message));
    };
  return {
    fatal: write('fatal'),
    error: write('error'),
    warn: write('warn'),
    // Nest announces each module and route at this level: worth a line when debugging, noise in operation.
    log: write('debug'),
    debug: write('debug'),
    verbose: write('trace'),
  };
}

/** A condition that is logged once when it begins and once when it ends, however often it is reported. */
export interface Condition {
  /** Whether it holds now. */
  readonly holds: boolean;
  begin(fields?: object): void;
  end(fields?: object): void;
}

/**
 * A condition such as "waiting for NATS": `begin` logs a warning the first time only, `end` logs that it is
 * over, with how long it held in `seconds`, and only if it had begun.
 */
export function onceUntil(logger: Logger, messages: { begins: string; ends: string }): Condition {
  let since: number | undefined;
  return {
    get holds() {
      return since !== undefined;
    },
    begin(fields = {}) {
      if (since !== undefined) return;
      since = performance.now();
      logger.warn(fields, messages.begins);
    },
    end(fields = {}) {
      if (since === undefined) return;
      const seconds = Math.round(performance.now() - since) / 1_000;
      since = undefined;
      logger.info({ ...fields, seconds }, messages.ends);
    },
  };
}
