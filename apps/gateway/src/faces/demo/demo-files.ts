/** The files of the page, as a browser is given them. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { Injectable } from '@nestjs/common';

const PAGE = new URL('./page/', import.meta.url);
const SDK = new URL('../../../../../client/posthorn.min.js', import.meta.url);
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Nothing but what this gateway serves, and no text that becomes markup or code. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/** A file with its headers. */
export interface DemoFile {
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** Read once: the page is part of the build. */
@Injectable()
export class DemoFiles {
  readonly #files: ReadonlyMap<string, DemoFile>;

  constructor() {
    const parts = readdirSync(PAGE).map((name) => [name, new URL(name, PAGE)] as const);
    this.#files = new Map(
      [...parts, ['posthorn.min.js', SDK] as const].flatMap(([name, url]) => {
        const type = TYPES[extname(name)];
        if (!type) return [];
        const body = readFileSync(url);
        return [[name, { body, headers: headersOf(body, type) }]];
      }),
    );
  }

  file(name: string): DemoFile | undefined {
    return this.#files.get(name);
  }
}

function headersOf(body: Buffer, type: string): Record<string, string> {
  return {
    'content-type': type,
    etag: `"${createHash('sha256').update(body).digest('base64url')}"`,
    'cache-control': 'no-cache',
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
  };
}
