/**
 * npm run audit: what is known about the packages of the lock file. Offline: versions are exact, what the image installs
 * is pinned by its hash, runs no script that package.json does not know, and has a licence that may be used. Then the
 * registry is asked for advisories on what runs in production: one of level high or critical fails, unless
 * tools/audit-allowed.json names it with a reason and a day on which that ends. A registry that does not answer is
 * reported, and fails with `--online` only.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './checkout.mjs';

/** How long the registry may take, in milliseconds. */
const PATIENCE = 15_000;
const LEVELS = ['high', 'critical'];

/** Licences that ask for nothing but to be named. */
const LICENCES = new Set([
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'CC-BY-4.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'Python-2.0',
  'Unlicense',
]);

/**
 * @typedef {{ version?: string, license?: string, integrity?: string, resolved?: string, link?: boolean, dev?: boolean,
 *   optional?: boolean, hasInstallScript?: boolean }} Locked
 * @typedef {{ dependencies?: Record<string, string>, devDependencies?: Record<string, string>,
 *   allowScripts?: Record<string, boolean> }} Manifest
 * @typedef {{ advisory: string, reason: string, until: string }} Allowed
 * @typedef {{ name: string, id: string, severity: string, title: string }} Advisory
 */

/**
 * What is wrong with the packages, as sentences.
 * @param {Manifest} manifest package.json
 * @param {Record<string, Locked>} packages of package-lock.json
 * @returns {string[]}
 */
export function lockFindings({ dependencies, devDependencies, allowScripts = {} }, packages) {
  const findings = [];
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
    if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))
      findings.push(`${name}: ${version} is not an exact version`);
  }
  for (const [path, locked] of Object.entries(packages)) {
    if (path === '' || locked.link) continue;
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    // Builds of a tool for other platforms are in the lock file by their names alone.
    const elsewhere = locked.dev && locked.optional;
    if (!locked.integrity && !elsewhere) findings.push(`${name}: no hash in the lock file`);
    if (locked.resolved) findings.push(`${name}: the lock file names where it came from`);
    if (locked.hasInstallScript && !Object.hasOwn(allowScripts, name)) {
      findings.push(`${name}: an install script that allowScripts in package.json does not know`);
    }
    if (!(elsewhere && !locked.license) && !mayBeUsed(locked.license)) {
      findings.push(`${name}: licence ${locked.license ?? 'unknown'}`);
    }
  }
  return findings;
}

/** @param {string | undefined} licence an SPDX expression */
function mayBeUsed(licence = '') {
  const plain = licence.replace(/^\((.*)\)$/, '$1');
  if (plain.includes(' AND ')) return plain.split(' AND ').every((part) => LICENCES.has(part));
  return plain.split(' OR ').some((part) => LICENCES.has(part));
}

/**
 * The advisories in the output of `npm audit --json`, each once.
 * @param {{ vulnerabilities?: Record<string, { via: (string | { name: string, url: string, severity: string,
 *   title: string })[] }> }} report
 * @returns {Advisory[]}
 */
export function advisoriesOf({ vulnerabilities = {} }) {
  const all = new Map();
  for (const via of Object.values(vulnerabilities).flatMap((vulnerability) => vulnerability.via)) {
    if (typeof via === 'string') continue;
    const { name, url, severity, title } = via;
    const id = url.slice(url.lastIndexOf('/') + 1);
    all.set(id, { name, id, severity, title });
  }
  return [...all.values()];
}

/**
 * What has to be done about advisories, as sentences.
 * @param {readonly Advisory[]} advisories
 * @param {readonly Allowed[]} allowed
 * @param {string} today `2026-01-31`
 * @returns {string[]}
 */
export function advisoryFindings(advisories, allowed, today) {
  const findings = [];
  for (const { advisory, reason, until } of allowed) {
    if (!/^\d{4}-\d{2}-\d{2}$/.test(until) || !reason)
      findings.push(`${advisory}: allowed without a reason or a day`);
    else if (until < today) findings.push(`${advisory}: was allowed until ${until}`);
  }
  for (const { name, id, severity, title } of advisories) {
    if (!LEVELS.includes(severity) || allowed.some(({ advisory }) => advisory === id)) continue;
    findings.push(`${name}: ${id} (${severity}) ${title}`);
  }
  return findings;
}

/**
 * Asks the registry.
 * @param {string} directory of the lock file
 * @param {string[]} [args] further ones of npm
 * @returns {Promise<{ advisories: Advisory[] } | { unanswered: string }>}
 */
export function askRegistry(directory, args = []) {
  const audit = [
    'audit',
    '--omit=dev',
    '--json',
    '--fetch-retries=0',
    `--fetch-timeout=${PATIENCE}`,
    ...args,
  ];
  return new Promise((done) => {
    execFile('npm', audit, { cwd: directory, timeout: PATIENCE, maxBuffer: 64 << 20 }, (error, stdout) => {
      try {
        const report = JSON.parse(stdout);
        // It ends with 1 where there are advisories, and where the registry did not answer.
        if (report.vulnerabilities) return done({ advisories: advisoriesOf(report) });
        done({ unanswered: report.message ?? report.error?.summary ?? 'no report' });
      } catch {
        done({ unanswered: error?.killed ? `nothing within ${PATIENCE / 1_000} s` : 'no report' });
      }
    });
  });
}

/** @param {string} file */
const read = (file) => JSON.parse(readFileSync(join(root, file), 'utf8'));

async function main() {
  const findings = lockFindings(read('package.json'), read('package-lock.json').packages);
  const allowed = read('tools/audit-allowed.json');
  const answer = await askRegistry(root);
  const advisories = 'advisories' in answer ? answer.advisories : [];
  findings.push(...advisoryFindings(advisories, allowed, new Date().toISOString().slice(0, 10)));
  for (const finding of findings) console.error(`  ✗ ${finding}`);
  if ('unanswered' in answer) {
    console.error(`  ! advisories were not looked up, the registry did not answer: ${answer.unanswered}`);
  } else console.log(`  ✓ advisories: ${advisories.length} known, ${LEVELS.join(' and ')} count`);
  if (findings.length === 0) console.log('  ✓ lock file: versions, hashes, install scripts, licences');
  const failed = findings.length > 0 || ('unanswered' in answer && process.argv.includes('--online'));
  process.exitCode = failed ? 1 : 0;
}

if (resolve(process.argv[1] ?? '') === fileURLToPath(import.meta.url)) await main();
