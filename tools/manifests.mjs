/**
 * npm run manifests: renders the overlays of k8s/ to k8s/rendered/. What a change of a base does to a cluster is seen
 * in its diff, and the tests look at these files: they need no kubectl, which no package manager brings in a version
 * that reads our overlays (docs/adr/0014-rendered-manifests.md).
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './checkout.mjs';
import { newSecrets } from './secrets.mjs';

/** The overlays of k8s/overlays. */
export const overlays = /** @type {const} */ (['development', 'production', 'production-nats-tls']);

/** @typedef {(typeof overlays)[number]} Overlay */

/** @param {Overlay} overlay */
export function renderedFile(overlay) {
  return join(root, 'k8s', 'rendered', `${overlay}.yaml`);
}

/** A hash over what the overlays are made of. */
export function manifestSources() {
  const hash = createHash('sha256');
  const files = ['base', 'components', 'overlays']
    .flatMap((folder) =>
      readdirSync(join(root, 'k8s', folder), { recursive: true, withFileTypes: true }).filter(
        (entry) => entry.isFile() && entry.name !== 'secrets.env',
      ),
    )
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  for (const file of files)
    hash
      .update(`${relative(root, file)}\0`)
      .update(readFileSync(file))
      .update('\0');
  return hash.digest('hex');
}

/** Whether this machine has a kubectl that reads the overlays. */
export function hasKubectl() {
  const { stdout } = spawnSync('kubectl', ['version', '--client', '--output=json'], { encoding: 'utf8' });
  const [, major] = /"kustomizeVersion": "v(\d+)/.exec(stdout ?? '') ?? [];
  return Number(major ?? 0) >= 5;
}

/**
 * An overlay as kubectl renders it. Generated Secrets have the names of their variables, and no values.
 * @param {Overlay} overlay
 */
export function render(overlay) {
  const copy = mkdtempSync(join(tmpdir(), 'posthorn-manifests-'));
  try {
    cpSync(join(root, 'k8s'), copy, { recursive: true });
    const names = Object.keys(newSecrets()).map((name) => `${name}=\n`);
    writeFileSync(join(copy, 'overlays', 'development', 'secrets.env'), names.join(''));
    const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', join(copy, 'overlays', overlay)], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`kubectl kustomize could not render ${overlay}:\n${stderr}`);
    return stdout;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (hasKubectl()) {
    mkdirSync(join(root, 'k8s', 'rendered'), { recursive: true });
    for (const overlay of overlays) {
      const header = `# k8s/overlays/${overlay}, by npm run manifests: to read, not to apply. Made of ${manifestSources()}\n`;
      writeFileSync(renderedFile(overlay), header + render(overlay));
    }
  } else {
    console.error(
      'No kubectl with kustomize 5 or later (kubectl 1.27) on this machine, which is what renders k8s/.',
    );
    process.exitCode = 1;
  }
}
