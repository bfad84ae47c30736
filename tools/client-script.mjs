/** The client SDK as one script for pages: IIFE, ES2022, globals `Posthorn`, `PubSub` and `PosthornError`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { minify } from '@swc/core';
import { build } from 'esbuild';
import { root } from './checkout.mjs';

/** Where `npm run build` puts it. */
export const scriptFile = join(root, 'dist', 'client', 'posthorn.min.js');

/**
 * Properties that the script may call otherwise: those of the machine's inside, which no frame, no answer and no
 * user's code ever sees. test/client-package.spec.ts holds each use of them against its declaration.
 */
export const INNER_NAMES = [
  // What happens and what is wanted, beside the frames.
  ...[
    'type',
    'time',
    'effects',
    'listener',
    'listeners',
    'frame',
    'receipt',
    'expiresIn',
    'visible',
    'online',
  ],
  ...['accepted', 'refused', 'rejected', 'failed', 'gone', 'info', 'options', 'bytes'],
  // The state, an attempt and a connection.
  ...[
    'attempt',
    'link',
    'topics',
    'publishes',
    'phase',
    'seed',
    'streaming',
    'streams',
    'refusals',
    'failures',
  ],
  ...[
    'retryAt',
    'imposed',
    'upgradeAt',
    'restreamAt',
    'toldState',
    'transports',
    'step',
    'problem',
    'opened',
  ],
  ...['pingAt', 'pinged', 'lostAt', 'renewAt', 'renewing', 'comeBackIn', 'announced', 'resumed', 'spent'],
  // A topic, its readers, a publish.
  ...[
    'wire',
    'pattern',
    'segments',
    'keyed',
    'groups',
    'reader',
    'waiting',
    'asked',
    'last',
    'leaving',
    'begun',
  ],
  ...['lags', 'held', 'start', 'epoch', 'sequence', 'floor', 'seen', 'resumeAt'],
  ...['askedAt', 'leftAt', 'called', 'sent', 'notBefore', 'unanswered'],
];

/** Writes the script. */
export async function bundleClient(file = scriptFile) {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'libs', 'client', 'src', 'script.ts')],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    platform: 'browser',
    write: false,
    mangleProps: new RegExp(`^(${INNER_NAMES.join('|')})$`),
    tsconfigRaw: {},
  });
  mkdirSync(dirname(file), { recursive: true });
  for (const { text } of outputFiles) {
    // What esbuild leaves long; nothing that could change what the code does.
    const { code } = await minify(text, {
      ecma: 2022,
      module: false,
      compress: { passes: 3, sequences: false, reduce_vars: false, hoist_vars: true },
      mangle: true,
    });
    writeFileSync(file, `/*! @posthorn/client | Apache-2.0 */\n${code}`);
  }
}
